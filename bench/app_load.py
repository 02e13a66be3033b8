"""How the running app bears many visitors: each sends clips one after the other, as a browser or gradio_client does.

    python -m triadbench.bench.app_load http://127.0.0.1:7860 --visitors 20 --seconds 60

Timed is what a visitor waits for one answer: upload, queue, answer and what comes back. Not timed: the pause between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time

from triadbench.core.files import PACKAGE

CLIP = PACKAGE / "export" / "app" / "examples" / "c-major.ogg"


async def visitor(client, url: str, clip: bytes, end: float, pause_s: float, done: list, errors: list) -> None:
    """One visitor until `end`; appends (seconds waited, ms of reading and answering) of each answer."""
    while time.monotonic() < end:
        await asyncio.sleep(random.uniform(0, 2 * pause_s))
        begin = time.monotonic()
        try:
            said = await ask(client, url, clip)
        except Exception as error:  # whatever it is, it is counted
            errors.append(f"{type(error).__name__}: {error}")
            continue
        if said["chord"] != "C":
            errors.append(f"wrong answer {said['chord']}")
        done.append((time.monotonic() - begin, said["read_ms"] + said["model_ms"]))


async def ask(client, url: str, clip: bytes) -> dict:
    """Send a clip and wait for its answer. Raises ValueError where the app refuses it."""
    sent = await client.post(f"{url}/gradio_api/upload", files={"files": ("clip.ogg", clip)})
    sent.raise_for_status()
    file = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
    called = await client.post(f"{url}/gradio_api/call/name_chord", json={"data": [file, "", ""]})
    called.raise_for_status()
    async with client.stream("GET", f"{url}/gradio_api/call/name_chord/{called.json()['event_id']}") as answer:
        event = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "complete":
                return json.loads(line.removeprefix("data: "))[0]
            elif line.startswith("data: ") and event == "error":
                raise ValueError(line)
    raise ValueError("the answer ended early")


async def measure(url: str, visitors: int, seconds: float, pause_s: float) -> dict:
    """Numbers of answers and errors, and percentiles of the time waited (s) and of the server's own work (ms)."""
    import httpx

    done: list[tuple[float, float]] = []
    errors: list[str] = []
    clip, end = CLIP.read_bytes(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=4 * visitors)
    async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(visitor(client, url, clip, end, pause_s, done, errors) for _ in range(visitors)))
    waited, work = [one[0] for one in done], [one[1] for one in done]
    return {
        "visitors": visitors,
        "seconds": seconds,
        "pause_s": pause_s,
        "answers": len(done),
        "errors": len(errors),
        "first_errors": errors[:3],
        "waited_s": percentiles(waited),
        "server_ms": percentiles(work),
    }


def percentiles(values: list[float]) -> dict:
    """p50, p90, p99 and the largest."""
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(values)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between an answer and the next clip")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.url, given.visitors, given.seconds, given.pause)), indent=1))
