"""The app's promises to programs and to strangers: answers, friendly refusals, nothing served that is not one's own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.export.app.conftest import start
from tests.odd_files import BAD, SILENT, pcm
from triadbench.bench import app_load
from triadbench.core.audio.io import AUDIO_SUFFIXES
from triadbench.core.files import pretrained_path
from triadbench.export.app import EXAMPLES, example_sounds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other packages, while they are imported
    gradio_client = pytest.importorskip("gradio_client", reason='the app needs Gradio: pip install -e ".[app]"')

pytestmark = pytest.mark.filterwarnings("ignore")  # gradio_client's own
ROOT = Path(__file__).resolve().parents[3]
FORMATS = {".lab", ".json", ".csv", ".mid", ".html"}


@pytest.fixture(scope="module")
def client(app, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    return gradio_client.Client(app.url, verbose=False, download_files=str(downloads), analytics_enabled=False)


def name(client, path, model="", provider=""):
    return client.predict(gradio_client.handle_file(str(path)), model, provider, api_name="/name_chord")


def refusal(client, path, api_name="/name_chord"):
    with pytest.raises(Exception) as caught:
        client.predict(gradio_client.handle_file(str(path)), "", "", api_name=api_name)
    line = str(caught.value)
    assert "\n" not in line and "Traceback" not in line and "/" not in line.replace(" / ", ""), line
    return line


def post(app, data, api_name="name_chord"):
    """A call as a stranger would make it, without the client's care; the event's text."""
    call = httpx.post(f"{app.url}/gradio_api/call/{api_name}", json={"data": data})
    if call.status_code != 200:
        return call.text
    return httpx.get(f"{app.url}/gradio_api/call/{api_name}/{call.json()['event_id']}", timeout=20).text


@pytest.mark.parametrize("example", example_sounds.CLIPS)
def test_examples_are_named_rightly(client, example):
    root, chord_type, *_ = example_sounds.CLIPS[example]
    answer = name(client, example_sounds.example(example))
    assert (answer["root"], answer["type"]) == (root, chord_type) and answer["confidence"] > 0.9
    assert len(answer["alternatives"]) == 5 and answer["provider"] == "cpu" and answer["model"] == "chordnet.onnx"
    assert 0 < answer["model_ms"] and 0 < answer["read_ms"]


def test_the_shipped_examples_are_small():
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir()) < 300_000


@pytest.mark.parametrize("silence", SILENT)
def test_silence_is_no_chord(client, tmp_path, silence):
    pcm(tmp_path / "silent.wav", SILENT[silence])
    answer = name(client, tmp_path / "silent.wav")
    assert answer["chord"] == "N" and answer["root"] is None


@pytest.mark.parametrize("kind", ["truncated", "zero length", "nan", "text", "noise", "empty"])
@pytest.mark.parametrize("api_name", ["/name_chord", "/timeline"])
def test_a_bad_file_gets_a_friendly_line(client, tmp_path, kind, api_name):
    make, message = BAD[kind]
    path = tmp_path / "sound.wav"
    make(path)
    line = refusal(client, path, api_name)
    assert message in line and "this file" in line


def test_what_the_reader_has_to_say_is_in_the_answers(client, tmp_path):
    sound = example_sounds.triad("D", "minor", 3, 4)
    soundfile.write(tmp_path / "inverted.wav", np.stack([sound, -sound], axis=1), 16_000)
    song, _ = client.predict(gradio_client.handle_file(str(tmp_path / "inverted.wav")), "", "", api_name="/timeline")
    for answer in (name(client, tmp_path / "inverted.wav"), song):
        assert answer["note"].startswith("this file: its channels cancel each other out")


def test_the_file_picker_offers_all_sounds(app):
    parts = httpx.get(f"{app.url}/config").json()["components"]
    [types] = [part["props"]["file_types"] for part in parts if part["props"].get("elem_id") == "song-file"]
    for suffix in AUDIO_SUFFIXES:
        assert gradio_client.utils.is_valid_file(f"a song{suffix}", types)


def test_too_long_for_a_clip(client, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(61 * 8000), 8000)
    line = refusal(client, tmp_path / "long.flac")
    assert "lasts 1:01" in line and "longer than 1:00" in line and "the tab Song" in line


def test_too_long_for_a_song(client, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(31 * 8000), 8000)
    assert "longer than 0:30" in refusal(client, tmp_path / "long.flac", "/timeline")


def test_a_header_that_promises_three_hours(client, tmp_path):
    soundfile.write(tmp_path / "three.flac", np.zeros(1000), 8000)
    data = bytearray((tmp_path / "three.flac").read_bytes())
    frames = 3 * 3600 * 8000  # 36 bits, the last four bytes and half the one before (RFC 9639, 8.2)
    data[21:26] = ((int.from_bytes(data[21:26], "big") >> 36 << 36) | frames).to_bytes(5, "big")
    (tmp_path / "three.flac").write_bytes(data)
    for api_name in ("/name_chord", "/timeline"):
        assert "lasts 3:00:00" in refusal(client, tmp_path / "three.flac", api_name)


def test_too_large(client, tmp_path):
    (tmp_path / "large.wav").write_bytes(bytes(3_200_000))
    with pytest.raises(Exception, match="(?i)size|large|413"):
        name(client, tmp_path / "large.wav")


def test_an_unknown_menu_entry(client):
    path = gradio_client.handle_file(str(example_sounds.example("C major")))
    for model, provider, named in (("../../etc/passwd", "", "model="), ("", "quantum", "provider=")):
        with pytest.raises(Exception, match=f"{named}.*is not in the menu"):
            client.predict(path, model, provider, api_name="/name_chord")


@pytest.mark.skipif(not pretrained_path("chordnet.int8.onnx").is_file(), reason="no int8 model is shipped")
def test_another_model(client):
    answer = name(client, example_sounds.example("C major"), "shipped model, int8", "cpu")
    assert answer["chord"] == "C" and answer["model"] == "chordnet.int8.onnx"


def test_a_song_in_every_format(client):
    timeline, files = client.predict(
        gradio_client.handle_file(str(example_sounds.example(example_sounds.SONG))), "", "", api_name="/timeline"
    )
    assert timeline["key"] == "G major" and timeline["segments"][0]["start_s"] == 0
    chords = [segment["chord"] for segment in timeline["segments"] if segment["chord"] != "N"]
    assert chords == ["G", "Em", "C", "D", "G", "Bdim", "C", "D", "G"]
    assert {Path(file).suffix for file in files} == FORMATS
    assert all(Path(file).stat().st_size > 50 and Path(file).stem.startswith("progression") for file in files)


def test_visitors_at_once_are_all_answered(app):
    """Also: the load test still speaks the app's protocol."""
    result = asyncio.run(app_load.measure(app.url, visitors=4, seconds=2, pause_s=0.1))
    assert result["answers"] >= 4 and result["errors"] == 0, result["first_errors"]


# --- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        str(ROOT / "README.md"),
        "README.md",
        "/etc/passwd",
        "../../../../etc/passwd",
        str(ROOT),
        "/",
        "/proc/self/environ",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x",
        "http%3A//127.0.0.1:9/x",
        str(pretrained_path("chordnet.onnx")),
    ],
)
def test_nothing_of_this_machine_is_served(app, path):
    answer = httpx.get(f"{app.url}/gradio_api/file={path}")
    assert answer.status_code in (403, 404) and "root:" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example:7860"}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
    ids=["a name made to point here", "another site", "no site"],
)
def test_pages_of_other_sites_are_turned_away(app, headers):
    for path in ("/", "/config", "/gradio_api/upload"):
        assert httpx.post(f"{app.url}{path}", headers=headers).status_code == 403
    assert httpx.get(f"{app.url}/config", headers={"Origin": app.url}).status_code == 200


def test_no_folder_is_served(app):
    (folder,) = app.temporary.glob("triadbench-*")
    for path in (folder, f"{folder}/", f"{folder}/.."):
        assert httpx.get(f"{app.url}/gradio_api/file={path}").status_code == 403
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", ["/etc/passwd", str(example_sounds.example("C major")), "../x.wav", "", "\0", None, 7])
def test_a_path_that_was_never_uploaded(app, path):
    text = post(app, [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", ""])
    assert "root:" not in text and '"chord"' not in text and "Traceback" not in text


@pytest.mark.parametrize("key", ["path", "url"])
def test_the_server_fetches_nothing_for_anyone(app, key):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.wav"
        text = post(app, [{"path": "x.wav", key: url, "meta": {"_type": "gradio.FileData"}}, "", ""])
        assert '"chord"' not in text
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("data", [[], [None, "", ""], ["x", "", ""], [[], {}, []], [{"path": {}}, 1, 2], "x", None])
def test_odd_calls_do_no_harm(app, client, data):
    assert '"chord"' not in post(app, data)
    assert name(client, example_sounds.example("C major"))["chord"] == "C"


@pytest.mark.parametrize(
    "filename", ["../../../evil.wav", "/tmp/evil.wav", "evil\0.wav", "..", "x" * 300 + ".wav", "CON"]
)
def test_an_upload_stays_where_it_belongs(app, filename):
    boundary = uuid.uuid4().hex
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{filename}"\r\n'
        f"Content-Type: audio/wav\r\n\r\nhello\r\n--{boundary}--\r\n"
    )
    answer = httpx.post(
        f"{app.url}/gradio_api/upload",
        content=body.encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    (folder,) = app.temporary.glob("triadbench-*")
    if answer.status_code == 200:
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(folder) and "evil" not in Path(path).parent.name
    outside = [path for path in app.temporary.rglob("*evil*") if not path.is_relative_to(folder)]
    assert outside == [] and not Path("/tmp/evil.wav").exists()


def test_what_is_no_sound_is_not_shown_as_a_page(app):
    sent = httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("x.html", b"<script>alert(1)</script>")})
    answer = httpx.get(f"{app.url}/gradio_api/file={sent.json()[0]}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_only_this_computer_can_connect(app):
    port = urlsplit(app.url).port
    with pytest.raises(OSError):  # another of this machine's addresses
        socket.create_connection(("127.0.0.2", port), timeout=2).close()


def test_the_page_names_no_other_place(app):
    page = httpx.get(app.url).text
    for place in ("fonts.g", "googleapis", "cdnjs", "jsdelivr", "unpkg", "gstatic"):
        assert place not in page
    assert set(httpx.get(f"{app.url}/gradio_api/info").json()["named_endpoints"]) == {"/name_chord", "/timeline"}


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_one_line(app):
    from triadbench.cli import main

    done = CliRunner().invoke(main, ["app", "--port", str(urlsplit(app.url).port), "--no-browser"])
    assert done.exit_code == 1 and "give another --port" in done.output and "Traceback" not in done.output


def test_without_gradio_the_way_out_is_told(tmp_path):
    code = "import sys; sys.modules['gradio'] = None; from triadbench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "app", "--port", "0", "--no-browser"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (
        done.returncode == 1
        and 'app needs Gradio; pip install "triadbench[app]"' in done.stderr
        and "Traceback" not in done.stderr
    )
    assert list(tmp_path.glob("triadbench-*")) == []


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to another process on Windows")
def test_ctrl_c_in_the_midst_of_a_song_waits_for_none(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(25 * 60 * 16_000, np.int16), 16_000)
    app = start(tmp_path)
    client = gradio_client.Client(app.url, verbose=False, analytics_enabled=False)
    song = client.submit(gradio_client.handle_file(str(tmp_path / "long.flac")), "", "", api_name="/timeline")
    end = time.monotonic() + 60
    while song.status().code != gradio_client.utils.Status.PROCESSING:
        assert time.monotonic() < end and not song.done()
        time.sleep(0.05)
    assert app.stop(signal.SIGINT) == 130
    with pytest.raises(Exception, match="the app is being closed; come again"):
        song.result(20)
    assert app.log.read_text().startswith("Ctrl-C ends") and "Traceback" not in app.log.read_text()
    assert list(app.temporary.glob("triadbench-*")) == []


@pytest.mark.slow
def test_twenty_killed_apps_leave_nothing_once_the_next_runs(tmp_path):
    def upload(app):
        content = np.random.default_rng(0).bytes(3_000_000)
        httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("x.wav", content)}).raise_for_status()

    for _ in range(20):
        app = start(tmp_path)
        assert not list(app.temporary.rglob("x.wav")) and len(list(app.temporary.iterdir())) == 1
        upload(app)
        assert list(app.temporary.rglob("x.wav"))
        assert app.stop(signal.SIGKILL) == -signal.SIGKILL
    beside = start(tmp_path)
    upload(beside)
    app = start(tmp_path)
    assert list(app.temporary.rglob("x.wav"))  # the other app lives, and so do its files
    assert app.stop() == 130 and beside.stop() == 130 and list(app.temporary.iterdir()) == []
