"""How the running app bears many visitors: each sends clips one after the other, as a browser or gradio_client does.

    python -m triadbench.bench.app_load http://127.0.0.1:7860 --visitors 20 --seconds 60

Timed is what a visitor waits for one answer: upload, queue, answer and download. Not timed: the pause between.
"""

import argparse
import asyncio
import json
import random
import time

import numpy as np

from triadbench.export.app.example_sounds import example


async def measure(url: str, visitors: int, seconds: float, pause_s: float) -> dict:
    """Numbers of answers and errors, and percentiles of the time waited (s) and of the server's own work (ms)."""
    import httpx

    waited_s: list[float] = []
    server_ms: list[float] = []
    errors: list[str] = []
    clip, end = example("C major").read_bytes(), time.monotonic() + seconds

    async def visit(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(random.uniform(0, 2 * pause_s))
            begin = time.monotonic()
            try:
                answer = await ask(client, url, clip)
            except Exception as error:  # whatever it is, it is counted
                errors.append(f"{type(error).__name__}: {error}")
                continue
            if answer["chord"] != "C":
                errors.append(f"wrong answer {answer['chord']}")
            waited_s.append(time.monotonic() - begin)
            server_ms.append(answer["read_ms"] + answer["model_ms"])

    limits = httpx.Limits(max_connections=4 * visitors)
    async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(visit(client) for _ in range(visitors)))
    counts = {"answers": len(waited_s), "errors": len(errors), "first_errors": errors[:3]}
    times = {"waited_s": percentiles(waited_s), "server_ms": percentiles(server_ms)}
    return {"visitors": visitors, "seconds": seconds, "pause_s": pause_s, **counts, **times}


async def ask(client, url: str, clip: bytes) -> dict:
    """Send a clip and wait for its answer. Raises ValueError where the app refuses it."""
    upload = await client.post(f"{url}/gradio_api/upload", files={"files": ("clip.ogg", clip)})
    upload.raise_for_status()
    file = {"path": upload.json()[0], "meta": {"_type": "gradio.FileData"}}
    call = await client.post(f"{url}/gradio_api/call/name_chord", json={"data": [file, "", ""]})
    call.raise_for_status()
    events = await client.get(f"{url}/gradio_api/call/name_chord/{call.json()['event_id']}")  # ends with the answer
    kind, _, data = events.text.strip().rpartition("\n\n")[2].partition("\n")
    if kind != "event: complete":
        raise ValueError(data or "the answer ended early")
    return json.loads(data.removeprefix("data: "))[0]


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest; empty without values."""
    names = ("p50", "p90", "p99", "max")
    return dict(zip(names, np.percentile(values, (50, 90, 99, 100)).tolist(), strict=True)) if values else {}


if __name__ == "__main__":  # pragma: no cover (a process of its own)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between an answer and the next clip")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.url, options.visitors, options.seconds, options.pause)), indent=1))
