"""Hostile visitors: none gets through, the server stays small, and a normal visitor is answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.export.app.conftest import start
from triadbench.export.app import example_sounds, guard

pytest.importorskip("gradio", reason='the app needs Gradio: pip install -e ".[app]"')
LINUX = sys.platform == "linux"
pytestmark = pytest.mark.skipif(not LINUX, reason="memory is read from /proc, and other addresses of 127/8 are used")

MARK = b"dont-log-me"
"""Is in every body that is sent; the log must not hold it."""
BOUNDARY = b"b0undary"
API = "/gradio_api"
MAX_MB = 4


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    started = start(tmp_path_factory.mktemp("victim"), "--max-mb", str(MAX_MB), "--max-minutes", "0.5")
    yield started
    log = started.log.read_text()
    assert started.process.poll() is None and started.stop() == 130
    assert MARK.decode() not in log and "Traceback" not in log and len(log) < 100_000, log[:2000]
    assert list(started.temporary.iterdir()) == []


@pytest.fixture(autouse=True)
def unharmed(victim):
    """After each test a normal visitor is answered, and the server has not grown."""
    yield
    assert visit(victim) == "C"
    assert peak_mb(victim) < 1000


def visit(app) -> str:
    """The chord that a normal visitor is told of the example in C."""
    content = example_sounds.example("C major").read_bytes()
    path = httpx.post(f"{app.url}{API}/upload", files={"files": ("c.ogg", content)}).json()[0]
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", ""]}
    event = httpx.post(f"{app.url}{API}/call/name_chord", json=data).json()["event_id"]
    text = httpx.get(f"{app.url}{API}/call/name_chord/{event}", timeout=30).text
    return json.loads(re.search(r"data: (.*)", text)[1])[0]["chord"]


def peak_mb(app) -> float:
    status = Path(f"/proc/{app.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1000


def stored_mb(app) -> float:
    return sum(path.stat().st_size for path in app.temporary.rglob("*") if path.is_file()) / 1e6


def connect(app, source: str = "127.0.0.2") -> socket.socket:
    """A connection from another address than the normal visitor's."""
    parts = urlsplit(app.url)
    return socket.create_connection((parts.hostname, parts.port), 40, (source, 0))


def say(app, request: bytes, source: str = "127.0.0.2") -> tuple[int, bytes]:
    """(status, the rest) of the answer to these bytes; status 0 where the connection is closed without one."""
    answer = b""
    with connect(app, source) as connection, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):  # it may answer, and close, before all is sent
            connection.sendall(request)
        while block := connection.recv(1 << 16):
            answer += block
    head, _, rest = answer.partition(b"\r\n")
    return int(head.split()[1]) if head else 0, rest


def get(path: str, host: str = "127.0.0.1", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, kind: str = "application/json", *lines: str, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Type: {kind}"]
    return "\r\n".join([*head, f"Content-Length: {length}", *lines, "", ""]).encode() + body


def part(content: bytes, disposition: str = 'name="files"; filename="x.wav"') -> bytes:
    return b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY, disposition.encode(), content)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--%s--\r\n" % BOUNDARY


FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"

OWN_HOSTS = ["127.0.0.1", "127.0.0.1:7860", "127.9.9.9", "localhost", "LocalHost:80", "[::1]", "[::1]:7860"]
OTHER_HOSTS = """127.evil.com 127.0.0.1.evil.com 127.0.0.1.evil.com:7860 localhost.evil.com evil.com evil.com:7860 [::2]
    [::1].evil.com [::1]evil.com 127.0.0.1@evil.com evil.com@127.0.0.1 127.0.0.1:80:80 127.0.0.1:evil 127 127.1 0x7f000001
    2130706433 127.0.0.01 0.0.0.0 10.0.0.1 169.254.169.254 [::ffff:10.0.0.1] [fe80::1] 127.0.0.1. ::1 [] [::1 : .
    [127.0.0.1] [[127.0.0.1]] 127.0.0.1] [localhost]""".split()


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_names_of_this_computer_are_taken(victim, host):
    assert say(victim, get("/config", host))[0] == 200


@pytest.mark.parametrize("host", [*OTHER_HOSTS, ""])
def test_other_hosts(victim, host):
    status, rest = say(victim, get("/config", host))
    assert status in (400, 403) and b"components" not in rest


@pytest.mark.parametrize("lines", [[], ["Host: 127.0.0.1", "Host: evil.com"], ["Host: evil.com", "Host: 127.0.0.1"]])
def test_no_host_and_two(victim, lines):
    request = "\r\n".join(["GET /config HTTP/1.1", "Connection: close", *lines, "", ""]).encode()
    assert say(victim, request)[0] in (400, 403)
    assert say(victim, request.replace(b"HTTP/1.1", b"HTTP/1.0"))[0] in (400, 403)
    hosts = [line.removeprefix("Host: ") for line in lines]
    assert not guard.from_this_computer(hosts, [])  # whatever the server before it lets pass


ORIGINS = """http://evil.com null https://127.0.0.1 http://127.0.0.1:1 http://127.0.0.1.evil.com http://localhost
    file:// http://127.0.0.1/ http://127.0.0.1@evil.com chrome-extension://x ://""".split()


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_other_sites(victim, origin):
    for request in (get("/config", "127.0.0.1", f"Origin: {origin}"), post(f"{API}/upload", form(part(b"x")), FORM)):
        if request.startswith(b"POST"):
            request = request.replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode(), 1)
        assert say(victim, request)[0] == 403
    assert not guard.from_this_computer(["127.0.0.1"], [origin, "http://127.0.0.1"])


def test_a_websocket_is_refused():
    """Gradio has none now; one that it may have is not reached."""
    sent, asked = [], []

    async def app(scope, receive, send):
        asked.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(guard.Guard(app, local=True, max_mb=1)({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close"}] and asked == []


BODIES = {
    "too long": b'{"data": ["%s"]}' % (MARK * 200_000),
    "long": b'{"data": ["%s", "", ""]}' % (MARK * 20_000),
    "a long path": b'{"data": [{"path": "%s", "meta": {"_type": "gradio.FileData"}}, "", ""]}' % (MARK * 20_000),
    "a long model": b'{"data": [null, "%s", ""]}' % (MARK * 20_000),
    "no JSON": MARK * 1000,
    "not UTF-8": b"\xff\xfe" + MARK,
    "nested": b"[" * 100_000 + MARK,
    "nested data": b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "nothing": b"",
    "a number": b"7",
    "null": b"null",
    "a list": b'["%s"]' % MARK,
    "no data": b'{"x": "%s"}' % MARK,
    "data is text": b'{"data": "%s"}' % MARK,
    "data is an object": b'{"data": {"%s": 1}}' % MARK,
    "a huge number": b'{"data": [' + b"9" * 100_000 + b"]}",
    "not a number": b'{"data": [NaN, Infinity, -Infinity]}',
    "another function": b'{"data": ["%s"], "fn_index": 99999, "session_hash": "x"}' % MARK,
    "a private function": b'{"data": ["%s", null, null], "fn_index": 0, "session_hash": "x"}' % MARK,
    "an odd function": b'{"data": [], "fn_index": "%s", "session_hash": {"a": 1}}' % MARK,
    "many keys": b"{" + b",".join(b'"%s%d": 1' % (MARK, i) for i in range(8000)) + b', "data": []}',
    "a lone surrogate": b'{"data": ["\\ud800%s", "\\ud800", ""]}' % MARK,
    "a NUL": b'{"data": [{"path": "\\u0000%s"}, "", ""]}' % MARK,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", ["call/name_chord", "run/predict", "run/name_chord", "queue/join", "reset", "cancel"])
def test_bodies(victim, path, body):
    status, rest = say(victim, post(f"{API}/{path}", BODIES[body]))
    assert status in (200, 400, 404, 413, 422) and b"Traceback" not in rest
    if body == "too long":
        assert status == 413
    if status == 200 and path == "call/name_chord":
        event = json.loads(rest.partition(b"\r\n\r\n")[2])["event_id"]
        assert b'"chord"' not in say(victim, get(f"{API}/call/name_chord/{event}"))[1]


def test_300_mb_are_neither_kept_nor_logged(victim):
    head = post(f"{API}/call/name_chord", b"", length=300_000_000)
    block = MARK * 100_000
    with connect(victim) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        for _ in range(300):
            connection.sendall(block)
    for path in ("queue/join", "upload"):
        for beside in (b"", b"\r\nContent-Length: 2", b"\r\nContent-Length: 0\r\nContent-Length: 2"):
            encoding = b"Transfer-Encoding: chunked" + beside
            head = post(f"{API}/{path}", b"").replace(b"Content-Length: 0", encoding)
            assert say(victim, head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(block), block))[0] in (400, 411)
    for length in ("-1", "1e3", "9" * 5000, "5, 6"):
        request = post(f"{API}/queue/join", b"").replace(b"Content-Length: 0", f"Content-Length: {length}".encode())
        assert say(victim, request)[0] in (400, 411, 413)


UPLOADS = {
    "no name": form(part(MARK, 'name="files"')),
    "an empty name": form(part(MARK, 'name="files"; filename=""')),
    "no field": form(part(MARK, 'filename="x.wav"')),
    "another field": form(part(MARK, 'name="x"; filename="x.wav"')),
    "no disposition": b"--%s\r\n\r\n%s\r\n" % (BOUNDARY, MARK) + form(),
    "no part": form(),
    "no body": b"",
    "no end": part(MARK),
    "no boundary": MARK * 1000,
    "a long name": form(part(MARK, f'name="files"; filename="{"x" * 5000}.wav"')),
    "a long header": form(part(MARK, f'name="files"; x="{"x" * 100_000}"')),
    "a name that climbs": form(part(MARK, 'name="files"; filename="../../../x.wav"')),
    "a name of dots": form(part(MARK, 'name="files"; filename=".."')),
    "a slash": form(part(MARK, 'name="files"; filename="/"')),
    "a NUL": form(part(MARK, 'name="files"; filename="\0"')),
    "control characters": form(part(MARK, 'name="files"; filename="\x01\x7f"')),
    "an odd encoding": form(part(MARK, "name=\"files\"; filename*=utf-99''%ff")),
    "many files": form(*[part(b"", f'name="files"; filename="{i}"') for i in range(1100)]),
    "many fields": form(*[part(b"", f'name="{i}"') for i in range(1100)]),
    "a large field": form(part(MARK * 90_000, 'name="files"')),
    "an open quote": form(part(MARK, 'name="files"; filename="x')),
}


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("query", ["", "?upload_id=x"])
def test_uploads(victim, upload, query):
    status, rest = say(victim, post(f"{API}/upload{query}", UPLOADS[upload], FORM))
    assert status in (200, 400, 413, 429), rest
    if status == 200:
        folder = next(victim.temporary.iterdir())
        paths = json.loads(rest.partition(b"\r\n\r\n")[2])
        assert all(Path(path).resolve().is_relative_to(folder) for path in paths)


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_uploads_of_another_kind(victim, kind):
    assert say(victim, post(f"{API}/upload", form(part(MARK)), kind))[0] == 400


PATHS = """/gradio_api/file=/etc/passwd /gradio_api/file=../../etc/passwd /gradio_api/file=%2e%2e%2fetc/passwd
    /gradio_api/file=/proc/self/environ /gradio_api/file=file:///etc/passwd /gradio_api/file=http://127.0.0.1:9/
    /gradio_api/file=//evil.com/x /gradio_api/file=\\\\evil.com\\x /gradio_api/file=%00 /gradio_api/file=
    /gradio_api/file//etc/passwd /gradio_api/proxy=http://127.0.0.1:9/ /gradio_api/proxy=https://evil.com/x
    /gradio_api/stream/x/0/0/playlist.m3u8 /gradio_api/stream/../../x/0/0/0.ts /static/../../../etc/passwd
    /static/%2e%2e/%2e%2e/etc/passwd /assets/..%2f..%2fetc/passwd /svelte/../../etc/passwd /static//etc/passwd
    /gradio_api/custom_component/x/client/../../../etc/passwd /monitoring /monitoring/x /gradio_api/vibe-code
    /gradio_api/dev/reload /gradio_api/runs /pwa_icon/99999999 /gradio_api/call/name_chord/x /%ff%fe
    /gradio_api/deep_link?session_hash=../../x /gradio_api/upload_progress?upload_id=x""".split()


@pytest.mark.parametrize("path", PATHS)
def test_paths(victim, path):
    with connect(victim) as connection:
        connection.sendall(get(path))
        connection.settimeout(5)
        with contextlib.suppress(TimeoutError):
            head = connection.recv(1 << 16)
            assert b"root:" not in head and b"PATH=" not in head and int(head.split()[1]) < 501, head
            assert "http" not in path or head.split()[1] == b"403"  # Gradio would send the visitor there
    assert say(victim, b"GET " + b"/x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")[0] in (
        0,
        400,
        404,
        414,
        431,
    )


POSTS = """/ /config /login /gradio_api/process_recording /gradio_api/component_server /gradio_api/vibe-edit
    /gradio_api/vibe-code /gradio_api/stream/x /gradio_api/api/name_chord
    /gradio_api/run-history/connect /gradio_api/call/../upload /gradio_api//upload""".split()


@pytest.mark.parametrize("path", POSTS)
def test_what_the_page_never_posts(victim, path):
    assert say(victim, post(path, MARK))[0] == 405
    for method in (b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"EVIL"):
        assert say(victim, post(path, b"").replace(b"POST", method))[0] == 405


@pytest.mark.parametrize(
    "garbage", [b"\0" * 100, b"\x16\x03\x01\x02\x00", b"GET /\r\n\r\n", b"x" * 100_000, b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_http(victim, garbage):
    with connect(victim) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert b"200" not in connection.recv(100).split(b"\r\n")[0]


@pytest.mark.parametrize("files", [1, 100])
def test_a_visitor_fills_no_disk(victim, files):
    before, source = stored_mb(victim), f"127.0.1.{files}"
    upload = post(f"{API}/upload", form(*[part(os.urandom(3_900_000 // files)) for _ in range(files)]), FORM)
    statuses = [say(victim, upload, source)[0] for _ in range(12)]
    assert statuses == [200] * 5 + [429] * 7 and stored_mb(victim) < before + 5 * MAX_MB
    assert say(victim, post(f"{API}/upload", b"", FORM, length=MAX_MB * 1_000_000 + 100_000), source)[0] == 413


def test_all_visitors_together_fill_no_disk():
    quota, now = guard.Quota(each=5, total=12, clock=lambda: now), 0.0
    assert [quota.take(address, 5) for address in "aabbcd"] == [True, False, True, False, False, False]
    assert quota.take("c", 2) and not quota.take("d", 1)
    now = guard.KEPT_S + 1.0
    assert [quota.take("a", 5), quota.take("a", 1), quota.take("d", 5)] == [True, False, True]


@pytest.mark.slow
def test_slow_visitors_are_sent_away(victim):
    """500 half-open connections, and bodies that trickle in: others are answered meanwhile, and all of them go."""
    upload = post(f"{API}/upload", b"", FORM, length=500_000)
    heads = [
        b"",
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        upload,
        get("/config").replace(b"close", b"keep-alive"),
    ]
    with contextlib.ExitStack() as stack:
        slow = []
        for number in range(500):
            slow.append(stack.enter_context(connect(victim)))
            with contextlib.suppress(ConnectionError):
                slow[-1].sendall(heads[number % len(heads)])
        begin = time.monotonic()
        assert visit(victim) == "C"
        while slow and time.monotonic() < begin + 60:
            assert visit(victim) == "C"
            for connection in list(slow):
                connection.setblocking(False)
                try:
                    connection.sendall(b"x")
                    while connection.recv(1 << 16):
                        pass
                    slow.remove(connection)
                except BlockingIOError:
                    pass
                except OSError:
                    slow.remove(connection)
            time.sleep(1)
        assert not slow
