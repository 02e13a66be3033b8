"""The archive arrives whole and checked or not at all, whatever the server does; a cut connection costs no byte twice.

The server runs here, on the loopback; `behaviour` says what it does at each request.
"""

import hashlib
import http.server
import io
import json
import os
import shutil
import threading
import zipfile

import numpy as np
import pytest

from tests.core.sounds import NAMES, short_wav
from triadbench.core.data.fetch import ARCHIVE, FOLDER, RECORD_URL, download, fetch
from triadbench.core.errors import UserError
from triadbench.core.files import only_one

CONTENT = np.random.default_rng(0).bytes(300_000)
SIZE = len(CONTENT)


def archive_bytes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for seed, name in enumerate(NAMES):
            archive.writestr(f"audio/{name}", short_wav(seed))
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at /file and a record of it at /record; `script` holds one behaviour for each request.

    Behaviours: "ok", "cut" (half of what was asked, then closed) and more, see `Handler.serve`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.script, self.ranges, self.record = CONTENT, [], [], None
        self.tag = '"v1"'

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that goes away is what some tests do."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.close_connection = True
        if self.path == "/record":
            self.serve_record()
        else:
            self.server.ranges.append(self.headers.get("Range"))
            self.serve(self.server.script.pop(0) if self.server.script else "ok")

    def serve_record(self):
        answer = self.server.script.pop(0) if self.server.record is None else "ok"
        if answer != "ok":
            return self.send_error(int(answer))
        self.answer(200, json.dumps(self.server.record).encode())

    def serve(self, behaviour):
        content, start = self.server.content, 0
        asked = self.headers.get("Range")
        if_range = self.headers.get("If-Range")
        if asked and not behaviour.startswith("no ranges") and if_range in (None, self.server.tag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        part = content[start:]
        extra = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        status = 206 if start else 200
        if behaviour.isdigit():
            self.send_error(int(behaviour))
        elif start and start >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        elif behaviour in ("cut", "no ranges, cut"):
            self.answer(status, part[: max(1, len(part) // 2)], extra, length=len(part))
        elif behaviour == "no ranges, quarter":
            self.answer(status, part[: len(part) // 4], extra, length=len(part))
        elif behaviour == "nothing":
            self.answer(status, b"", extra, length=len(part))
        elif behaviour == "promises more":
            self.answer(status, part, extra, length=len(part) + 1000)
        elif behaviour == "promises less":
            self.answer(status, part, extra, length=len(part) - 1000)
        elif behaviour == "no length":
            self.answer(status, part, extra, length=False)
        elif behaviour == "no length, too much":
            self.answer(status, part + b"x" * 1000, extra, length=False)
        elif behaviour == "another part":
            self.answer(206, part, {"Content-Range": f"bytes 7-{len(content) - 1}/{len(content)}"})
        elif behaviour.startswith("redirect "):
            self.answer(302, b"", {"Location": behaviour.removeprefix("redirect ")})
        else:
            self.answer(status, part, extra)

    def answer(self, status, body, headers=(), length=None):
        self.send_response(status)
        if length is not False:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, tmp_path, *, size=SIZE, checksum=None, retries=2, **options):
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}" if checksum is None else checksum
    return download(
        f"{server.url}/file",
        tmp_path / "x.zip",
        size=size,
        checksum=checksum or None,
        retries=retries,
        pause_s=0,
        **options,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_with_progress_and_is_not_fetched_again(server, tmp_path):
    seen = []
    path = get(server, tmp_path, progress=lambda *at: seen.append(at))
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["x.zip"]
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    get(server, tmp_path)
    assert server.ranges == [None]


def test_a_cut_connection_is_resumed_where_it_stopped(server, tmp_path):
    server.script = ["cut"] * 6
    assert get(server, tmp_path, retries=1).read_bytes() == CONTENT
    starts = [int(asked[6:-1]) for asked in server.ranges[1:]]
    assert starts[:2] == [150_000, 225_000] and starts == sorted(set(starts)) and len(starts) == 6


def test_what_has_come_is_kept_and_continued_by_the_next_call(server, tmp_path):
    server.script = ["cut", "nothing", "nothing", "503"]
    with pytest.raises(UserError, match=r"gave up after 3 attempts .*150000 bytes are kept in .*x.zip.part: run"):
        get(server, tmp_path)
    assert names(tmp_path) == ["x.zip.part", "x.zip.part.json"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=150000-" and names(tmp_path) == ["x.zip"]


def test_killed_at_the_end_it_leaves_nothing_beside_the_file(server, tmp_path, monkeypatch):
    def die_at_the_end(old, new):
        if str(new).endswith("x.zip"):
            raise KeyboardInterrupt
        os.rename(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", die_at_the_end)
        get(server, tmp_path)
    assert names(tmp_path) == ["x.zip.part"]
    assert get(server, tmp_path).read_bytes() == CONTENT and names(tmp_path) == ["x.zip"] and len(server.ranges) == 1


def test_a_file_that_changed_meanwhile_is_started_over(server, tmp_path):
    server.script = ["cut", "nothing", "nothing"]
    with pytest.raises(UserError):
        get(server, tmp_path, retries=1)
    server.tag, server.content = '"v2"', CONTENT[::-1]
    checksum = f"md5:{hashlib.md5(CONTENT[::-1]).hexdigest()}"
    assert get(server, tmp_path, checksum=checksum).read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_ranges_starts_over_and_ends(server, tmp_path):
    server.script = ["cut", "no ranges"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.zip").unlink()
    server.script = ["no ranges, cut", "no ranges, quarter"] * 25
    with pytest.raises(UserError, match="gave up"):
        get(server, tmp_path)
    assert len(server.script) > 40


@pytest.mark.parametrize("known", [True, False])
def test_a_length_that_is_promised_too_long_is_an_error_or_mended(known, server, tmp_path):
    server.script = ["promises more"]
    if known:
        with pytest.raises(UserError, match="has 301000 bytes, and 300000 are stated"):
            get(server, tmp_path)
    else:
        assert get(server, tmp_path, size=None).read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize("known", [True, False])
def test_a_length_that_is_promised_too_short_is_an_error(known, server, tmp_path):
    server.script = ["promises less"]
    message = "has 299000 bytes, and 300000 are stated" if known else "wrong file: 299000 bytes, md5 .* removed"
    with pytest.raises(UserError, match=message):
        get(server, tmp_path, size=len(CONTENT) if known else None)
    assert names(tmp_path) == []


def test_an_answer_without_a_length(server, tmp_path):
    server.script = ["no length"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.zip").unlink()
    server.script = ["no length, too much"]
    with pytest.raises(UserError, match="sends more than the 300000 bytes"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_another_part_than_asked_is_refused(server, tmp_path):
    server.script = ["cut", "another part"]
    with pytest.raises(UserError, match="another part than was asked for"):
        get(server, tmp_path)


def test_a_wrong_file_is_an_error_and_removed(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(UserError, match=r"wrong file: 300000 bytes, md5 \w+; stated: 300000 bytes, md5:\w+. It was"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_a_whole_part_is_checked_without_a_request(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.zip").unlink()
    (tmp_path / "x.zip.part").write_bytes(CONTENT + b"too long")
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_an_error_of_the_server_is_waited_out_or_final(server, tmp_path):
    server.script = ["500", "503", "ok"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.zip").unlink()
    server.script = ["404", "ok"]
    with pytest.raises(UserError, match="the server answered 404"):
        get(server, tmp_path)
    assert len(server.script) == 1
    server.script = ["500"] * 9
    with pytest.raises(UserError, match="answered 500 .*gave up after 3"):
        get(server, tmp_path)


def test_no_server_at_all(tmp_path):
    with pytest.raises(UserError, match="gave up after 1 attempts"):
        download("http://127.0.0.1:9/x", tmp_path / "x", retries=0, pause_s=0)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "http://", "x.zip", "http://a b/", "http://h:x/"]
)
def test_only_http_addresses(url, server, tmp_path):
    with pytest.raises(UserError, match="not an http or https address"):
        download(url, tmp_path / "x")
    with pytest.raises(UserError, match="not an http or https address"):
        fetch(tmp_path / "data", record_url=url)


def test_redirects_are_followed_to_http_only(server, tmp_path):
    server.script = [f"redirect {server.url}/other", "ok"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.zip").unlink()
    for target, message in (("ftp://127.0.0.1/x", "not an http or https"), ("file:///etc/passwd", "not allowed")):
        server.script = [f"redirect {target}"]
        with pytest.raises(UserError, match=message):
            get(server, tmp_path)


def test_no_room_is_said_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="GB are needed"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_another_file_in_the_place_is_not_overwritten(server, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already and is not the file"):
        get(server, tmp_path)
    assert (tmp_path / "x.zip").read_bytes() == b"mine"


def record(server, **changes):
    entry = {
        "key": ARCHIVE,
        "size": len(server.content),
        "checksum": f"md5:{hashlib.md5(server.content).hexdigest()}",
        "links": {"self": f"{server.url}/file"},
    }
    return {"id": 4740877, "files": [{"key": "README.md"}, entry | changes]}


def test_fetch_reads_the_record_and_unpacks(server, tmp_path):
    assert RECORD_URL == "https://zenodo.org/api/records/4740877"
    server.content = archive_bytes()
    server.record = record(server)
    server.script = ["cut"]
    unpacked = []
    result = fetch(
        tmp_path / "data", record_url=f"{server.url}/record", pause_s=0, unpack_progress=lambda *at: unpacked.append(at)
    )
    assert names(tmp_path / "data") == [FOLDER, ARCHIVE]
    assert names(tmp_path / "data" / FOLDER / "audio") == sorted(NAMES)
    assert result["size"] == len(server.content) and result["checksum"] == server.record["files"][1]["checksum"]
    assert unpacked[-1][0] == unpacked[-1][1] > 0
    n_requests = len(server.ranges)
    again = fetch(tmp_path / "data", record_url=f"{server.url}/record")
    assert again["folder"] == result["folder"] and len(server.ranges) == n_requests == 2


def test_two_that_fetch_into_one_folder(server, tmp_path):
    pytest.importorskip("fcntl")
    with only_one(tmp_path), pytest.raises(UserError, match="another run is at work here; wait for it or choose"):
        fetch(tmp_path, record_url=f"{server.url}/record")
    assert server.ranges == [] and not any(tmp_path.iterdir())


def test_fetch_without_unpacking(server, tmp_path):
    server.content = archive_bytes()
    server.record = record(server)
    result = fetch(tmp_path, record_url=f"{server.url}/record", unpack=False)
    assert result["folder"] is None and names(tmp_path) == [ARCHIVE]


def test_a_record_is_asked_for_again_after_an_error(server, tmp_path):
    server.script = ["503", "502", "404"]
    with pytest.raises(UserError, match="answered 404"):
        fetch(tmp_path, record_url=f"{server.url}/record", pause_s=0)
    assert server.script == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "other.zip"}, "no file 'audioPianoTriadDataset.zip'"),
        ({"size": None}, "no usable size and checksum"),
        ({"size": True}, "no usable size and checksum"),
        ({"checksum": None}, "no usable size and checksum"),
        ({"checksum": "crc:123"}, "must look like md5:HEX"),
        ({"links": {}}, "no address"),
        ({"links": {"self": "file:///etc/passwd"}}, "not an http or https address"),
    ],
)
def test_a_record_that_says_too_little_is_refused(changes, message, server, tmp_path):
    server.record = record(server, **changes)
    with pytest.raises(UserError, match=message):
        fetch(tmp_path, record_url=f"{server.url}/record", pause_s=0)
    assert ARCHIVE not in names(tmp_path)


@pytest.mark.parametrize("junk", [[], 3, {"files": 3}, {"files": [1]}])
def test_a_record_of_junk_is_refused(junk, server, tmp_path):
    server.record = junk
    with pytest.raises(UserError, match="no file"):
        fetch(tmp_path, record_url=f"{server.url}/record")
    with pytest.raises(UserError, match="not JSON"):
        fetch(tmp_path, record_url=f"{server.url}/file")
