"""What a bulk run reads: folders, lists and buckets become ids and paths; what is wrong with them is one line."""

from __future__ import annotations

import http.server
import os
import threading

import pyarrow as pa
import pytest
from pyarrow import parquet

from triadbench.core.errors import UserError
from triadbench.export.cluster.sources import Reader, StorageFailure, list_files


def paths(table) -> list[str]:
    return [os.fsdecode(path) for path in table["path"].to_pylist()]


def read(reader: Reader, path: str) -> bytes:
    with reader(path)[0] as file:
        return file.read()


def test_a_folders_files_and_those_of_two(sounds):
    table = list_files([str(sounds)])
    assert len(table) == 27 and paths(table) == table["id"].to_pylist() == sorted(paths(table))
    assert str(sounds / "0" / "00.wav") in paths(table) and str(sounds / "notes.txt") not in paths(table)
    assert len(list_files([f"{sounds}/0", os.path.relpath(f"{sounds}/1")])) == 24
    with pytest.raises(UserError, match="12 ids occur more than once, as '.*0/.*wav'; give each file its own id"):
        list_files([str(sounds), f"{sounds}/0"])


def test_a_name_that_is_no_text(tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    open(odd, "wb").close()
    assert list_files([str(tmp_path)]).to_pylist() == [{"id": f"{tmp_path}/caf\\xe9.wav", "path": odd}]


@pytest.mark.parametrize("kind", ["txt", "csv", "parquet"])
def test_lists(sounds, tmp_path, kind):
    names, ids = ["a.wav", str(sounds / "0" / "00.wav"), "s3://music/x y%20.mp3"], ["007", "", "c"]
    place = tmp_path / f"list.{kind}"
    ids[1] = "b"
    if kind == "txt":
        place.write_text("\n".join(names) + "\n\n")
    elif kind == "csv":
        place.write_text("path,size,id\n" + "".join(f"{p},1,{i}\n" for p, i in zip(names, ids, strict=True)))
    else:
        parquet.write_table(pa.table({"id": ids, "path": names, "year": [1, 2, 3]}), place)
    table = list_files([str(place)])
    assert paths(table) == [f"{tmp_path}/a.wav", *names[1:]]
    assert table["id"].to_pylist() == (paths(table) if kind == "txt" else ids)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", "\n\n", "empty.txt: the list is empty"),
        ("double.txt", "a.wav\nb.wav\na.wav\n", "1 ids occur more than once, as .*a.wav'"),
        (
            "other.csv",
            "file,id\na,b\n",
            r"other.csv: the list has not one column `path`, or ids twice \(it has file, id\)",
        ),
        ("twice.csv", "path,path\na.wav,b.wav\n", r"not one column `path`, or ids twice \(it has path, path\)"),
        ("ids.csv", "path,id,id\na.wav,b,c\n", r"not one column `path`, or ids twice \(it has path, id, id\)"),
        ("hole.csv", "path,id\na.wav,x\n,y\n", "hole.csv: file 2 of the list has no path"),
        ("ragged.csv", "path,id\na.wav,x\nb.wav\n", "ragged.csv: not all rows of the list have the same number"),
        ("damaged.parquet", "PAR1", "damaged.parquet: cannot be used"),
        ("latin.csv", b"path\ncaf\xe9.wav\n", "latin.csv: cannot be used"),
        ("nothing.csv", "", r"nothing.csv: the list has not one column `path`"),
        ("latin.txt", b"caf\xe9.wav\n", r"latin.txt: the list is no UTF-8 text, as caf\\xe9.wav"),
        ("zero.csv", b"path\na\0.wav\n", "zero.csv: (file 1 of the list has no path|cannot be used)"),
        ("gone.txt", None, "gone.txt: cannot be used"),
        ("gone", None, "gone does not exist; give folders, buckets, or lists"),
        ("ftp://server/x", None, "ftp:// is not supported; give a path, s3:// or gs://"),
        ("https://server/x", None, "files on a web server cannot be listed; give a list"),
    ],
)
def test_what_is_wrong_with_a_source_is_said_in_one_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as caught:
        list_files([name if "://" in name else str(tmp_path / name)])
    assert "\n" not in str(caught.value)


def test_lists_as_other_programs_write_them(tmp_path):
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfa.wav\r\n../b\x0c.wav\r\n")
    (tmp_path / "capitals.csv").write_text('\ufeffPath, ID\r\n"a.wav", 007\r\n', newline="")
    parquet.write_to_dataset(pa.table({"path": ["a.wav"], "id": ["007"]}), tmp_path / "folder.parquet")
    (tmp_path / "numbers.csv").write_text("id,path\n1.10,00123\n1.1,00124\n")
    assert paths(list_files([f"{tmp_path}/bom.txt"])) == [f"{tmp_path}/a.wav", f"{tmp_path.parent}/b\x0c.wav"]
    for name in ("capitals.csv", "folder.parquet"):
        assert list_files([f"{tmp_path}/{name}"]).to_pylist() == [{"id": "007", "path": f"{tmp_path}/a.wav".encode()}]
    table = list_files([f"{tmp_path}/numbers.csv"])
    assert table["id"].to_pylist() == ["1.10", "1.1"] and paths(table) == [f"{tmp_path}/00123", f"{tmp_path}/00124"]


def test_columns_that_are_no_text(tmp_path):
    for name, values in (("struct", [{"a": 1}]), ("list", [["a"]]), ("binary", [b"caf\xe9"])):
        parquet.write_table(pa.table({"path": values}), tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match=f"{name}.parquet: cannot be used"):
            list_files([f"{tmp_path}/{name}.parquet"])


def test_a_folder_that_is_named_as_a_list(sounds, tmp_path):
    (tmp_path / "old.csv").symlink_to(sounds / "0")
    assert len(list_files([f"{tmp_path}/old.csv"])) == 12


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no audio file is in it"):
        list_files([str(tmp_path)])


def test_a_bucket(s3):
    for key in ("set/a.wav", "set/deep/b c%20?.mp3", "set/notes.txt", "settings/d.wav"):
        s3.put_object(Bucket="music", Key=key, Body=b"sound")
    table = list_files(["s3://music/set"])
    assert paths(table) == table["id"].to_pylist() == ["s3://music/set/a.wav", "s3://music/set/deep/b c%20?.mp3"]
    assert paths(list_files(["s3://music/set/a.wav"])) == ["s3://music/set/a.wav"]
    reader = Reader()
    assert [read(reader, path) for path in paths(table)] == [b"sound"] * 2 and reader.sizes == [5, 5]
    with pytest.raises(UserError, match="s3://music/set/none.wav does not exist"):
        reader("s3://music/set/none.wav")
    for missing in ("s3://music/nothing", "s3://nobucket/x"):
        with pytest.raises(UserError, match=r"cannot be used .*AWS_ACCESS_KEY_ID"):
            list_files([missing])


def test_a_storage_that_does_not_answer_ends_the_run_and_is_no_bad_file(monkeypatch):
    from triadbench.export.cluster import sources

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(sources.time, "sleep", lambda seconds: None)
    sources._file_system.cache_clear()
    try:
        with pytest.raises(StorageFailure, match="s3://music/a.wav"):
            Reader()("s3://music/a.wav")
        with pytest.raises(UserError, match="s3://music: cannot be used"):
            list_files(["s3://music"])
    finally:
        sources._file_system.cache_clear()


def test_files_of_a_web_server(monkeypatch):
    from triadbench.export.cluster import sources

    monkeypatch.setattr(sources.time, "sleep", lambda seconds: None)
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.partition("?")[0])
            good = dict.fromkeys(("/list.txt", "/a.wav", "/cut.wav", "/b%20c%C3%A9%20.wav"), 200)
            code = {**good, "/gone.wav": 404, "/private.wav": 403}.get(asked[-1], 503)
            code = 200 if self.path == "/late.wav" and asked.count("/late.wav") == 2 else code
            self.send_response(code)
            if self.path == "/cut.wav" and asked.count("/cut.wav") < 3:
                self.send_header("Content-Length", "99")
            self.end_headers()
            if code == 200:
                self.wfile.write(b"a.wav\n" if asked[-1] == "/list.txt" else b"sound")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        (path,) = paths(list_files([f"{here}/list.txt"]))
        reader = Reader()
        assert list_files([f"{here}/list.txt?signed=1"])["id"].to_pylist() == [f"{here}/a.wav"]
        assert read(reader, f"{here}/b c\u00e9%20.wav") == b"sound"
        assert path == f"{here}/a.wav" and read(reader, path) == b"sound"
        assert read(reader, f"{here}/late.wav") == b"sound"
        assert read(reader, f"{here}/cut.wav") == b"sound" and asked.count("/cut.wav") == 3
        for name, words in (("gone", "404"), ("private", "403"), ("broken", "503")):
            with pytest.raises(UserError, match=f"/{name}.wav: .*{words}"):
                reader(f"{here}/{name}.wav")
        assert asked.count("/gone.wav") == 1 and asked.count("/broken.wav") == 3
        server.shutdown()
    with pytest.raises(UserError, match="no answer"):  # a server that is no more is not the end of the run
        reader(f"{here}/a.wav")
