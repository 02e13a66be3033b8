"""Sounds, good ones and thirty kinds of bad ones; an S3 server on this machine."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import soundfile

from tests.core.toys import chord
from tests.odd_files import BAD


def sound(number: int, seconds: float = 4.0) -> np.ndarray:
    return chord(number % 12, number % 4, seconds=seconds)


def encoded(format: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, sound(5), 16_000, format=format, subtype=subtype)
    return out.getvalue()


def patched(at: int, new: bytes) -> bytes:
    """A wav file with other bytes at a place of its header."""
    content = encoded("WAV", "PCM_16")
    return content[:at] + new + content[at + len(new) :]


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("x.wav", encoded("WAV"))
    return out.getvalue()


def nan(value: float) -> bytes:
    out, bad = io.BytesIO(), sound(0)
    bad[30_000] = value
    soundfile.write(out, bad, 16_000, format="WAV", subtype="FLOAT")
    return out.getvalue()


def thirty_kinds() -> dict[str, bytes]:
    """Contents of bad files, by their names."""
    rng = np.random.default_rng(3)
    kinds = {
        "empty.wav": b"",
        "one-byte.wav": b"R",
        "header-alone.wav": encoded("WAV")[:44],
        "half-header.wav": encoded("WAV")[:20],
        "truncated.wav": encoded("WAV")[:50_000],
        "nan.wav": nan(np.nan),
        "infinite.wav": nan(np.inf),
        "rate-0.wav": patched(24, bytes(4)),
        "rate-4e9.wav": patched(24, b"\xff\xff\xff\xff"),
        "no-channel.wav": patched(22, bytes(2)),
        "no-bits.wav": patched(34, bytes(2)),
        "no-such-format.wav": patched(20, b"\x99\x99"),
        "no-wave.wav": patched(8, b"EVAW"),
        "text.wav": b"la la la\n" * 100,
        "noise.wav": rng.bytes(5000),
        "zeros.wav": bytes(5000),
        "page.mp3": b"<!doctype html><html><body>404 Not Found</body></html>",
        "json.mp3": b'{"error": "expired"}',
        "noise.mp3": rng.bytes(50_000),
        "tag-alone.mp3": b"ID3\x04\x00\x00\x00\x00\x00\x00",
        "magic-alone.flac": b"fLaC",
        "truncated.flac": encoded("FLAC")[:60],
        "magic-alone.ogg": b"OggS",
        "truncated.ogg": encoded("OGG")[:100],
        "picture.wav": b"\x89PNG\r\n\x1a\n" + rng.bytes(200),
        "pages.wav": b"%PDF-1.7\n" + rng.bytes(200),
        "archive.wav": zipped(),
        "packed.wav": gzip.compress(encoded("WAV")),
        "no-index.m4a": b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00M4A mp42" + b"\x00\x00\x10\x08mdat" + rng.bytes(4096),
        "header-alone.aiff": b"FORM\x00\x00\x00\x04AIFF",
    }
    assert len(kinds) == 30 and len(BAD) > 5
    return kinds


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """A folder: 24 clips of 12 chords in two folders below, a longer one, and two bad ones."""
    folder = tmp_path_factory.mktemp("sounds")
    for number in range(24):
        path = folder / f"{number // 12}" / f"{number:02}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound(number), 16_000)
    soundfile.write(folder / "long.flac", np.concatenate([sound(n) for n in range(5)]), 16_000)
    (folder / "text.wav").write_text("la la la")
    (folder / "empty.mp3").touch()
    (folder / "notes.txt").write_text("no sound, and not looked at")
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


@contextlib.contextmanager
def s3_server():
    """(client, process, environment that leads there) of an S3 server on this machine."""
    boto3, port = pytest.importorskip("boto3"), free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    variables = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **keys}
    try:
        while not is_open(port):
            time.sleep(0.1)
        access = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        yield boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"], **access), server, variables
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def s3():
    """A client of such a server, with a bucket "music", to which this process's environment leads."""
    with s3_server() as (client, _, variables):
        client.create_bucket(Bucket="music")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            yield client
