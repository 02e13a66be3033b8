"""The promise: compiled code is found again by all that it depends on, and by nothing else; no damaged file is used."""

import shutil

import pytest

from triadbench.kernels import object_cache
from triadbench.kernels.conv_pool import blocks
from triadbench.kernels.cpu import machine_code, numpy_entry
from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.object_cache import ObjectCache

CACHES = {cache.name: cache for cache in (numpy_entry._CACHE, blocks._CACHE, gpu_compile._CACHE)}


def _fresh(cache, **changes):
    """The same cache, which has read no source yet."""
    return ObjectCache(**{"name": cache.name, "sources": cache.sources, "packages": cache.packages} | changes)


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
def test_a_change_of_any_source_is_another_key(cache, tmp_path, monkeypatch):
    for source in cache.sources:
        (tmp_path / source).parent.mkdir(exist_ok=True)
        shutil.copy(object_cache._KERNELS / source, tmp_path / source)
    monkeypatch.setattr(object_cache, "_KERNELS", tmp_path)
    keys = {_fresh(cache).key()}
    assert keys == {cache.key()}
    for source in cache.sources:
        with (tmp_path / source).open("a", encoding="utf-8") as file:
            file.write("# an edit\n")
        keys.add(_fresh(cache).key())
    assert len(keys) == 1 + len(cache.sources)


def _imported(module):
    """The sources of kernels/ that running a module of it reads."""
    code = f"import triadbench.kernels.{module}, sys; print(*(m.__file__ for m in sys.modules.values() if " + (
        "m.__name__.startswith('triadbench.kernels.')))"
    )
    from tests.kernels.inputs import in_a_new_process

    files = [file.split("/kernels/", 1)[1] for file in in_a_new_process(code)]
    return {file for file in files if file not in ("cpu/__init__.py", "gpu/__init__.py")}


@pytest.mark.parametrize(
    ("cache", "module"),
    [(numpy_entry._CACHE, "cpu.kernel"), (blocks._CACHE, "conv_pool.code")],
    ids=["mel", "conv_pool"],
)
def test_the_sources_are_those_that_the_compiler_reads(cache, module):
    unlisted = {"cpu/plan.py", "spec.py"} if module == "conv_pool.code" else set()
    assert _imported(module) - unlisted <= set(cache.sources)


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
def test_a_key_covers_settings_packages_and_python(cache, monkeypatch):
    keys = {cache.key(), cache.key("float32"), cache.key("float32", 8), cache.key("float32", 16)}
    for package in cache.packages:
        with monkeypatch.context() as patch:
            version = object_cache._version
            patch.setattr(object_cache, "_version", lambda name, p=package, v=version: "0" if name == p else v(name))
            keys.add(_fresh(cache).key())
    monkeypatch.setattr(object_cache.sys, "version_info", (3, 99))
    keys.add(_fresh(cache).key())
    assert len(keys) == 5 + len(cache.packages)


def test_machine_code_is_kept_for_each_processor(tmp_path, monkeypatch):
    """Another name or other features compile again, into another file; the same ones find theirs."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code, compiled = machine_code.object_code("define void @f(i64* %job) { ret void }"), []
    here, more = ("znver4", ("+avx", "+avx2")), ("znver4", ("+avx", "+avx2", "+avx512f"))
    for processor in (here, more, ("skylake", here[1]), here, more):
        monkeypatch.setattr(machine_code, "host_processor", lambda processor=processor: processor)
        assert machine_code.load(ObjectCache("x", (), ()), (), "f", lambda: compiled.append(code) or code)
    assert len(compiled) == len(list(tmp_path.iterdir())) == 3


def test_a_missing_package_has_a_key_too():
    assert ObjectCache("x", (), ("no-such-package",)).key() != ObjectCache("x", (), ()).key()


class TestFiles:
    cache = ObjectCache("x", (), ())

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def _code(self, code=b"code"):
        """What the cache gives, and whether it had to compile."""
        compiled = []
        return self.cache.code("x.o", lambda: compiled.append(code) or code), bool(compiled)

    def test_what_is_kept_is_read(self, tmp_path):
        assert self._code(b"a\nb\n\x00") == (b"a\nb\n\x00", True)
        assert self._code() == (b"a\nb\n\x00", False)
        assert [path.name for path in tmp_path.iterdir()] == ["x.o"]

    @pytest.mark.parametrize("damage", [lambda file: file[:-1], lambda file: b"", lambda file: file + b"x"])
    def test_a_damaged_file_is_compiled_again(self, tmp_path, damage):
        self._code()
        file = tmp_path / "x.o"
        file.write_bytes(damage(file.read_bytes()))
        assert self._code() == (b"code", True)
        assert self._code() == (b"code", False)

    def test_the_first_folder_that_takes_the_file_is_used(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setattr(object_cache, "folders", lambda: [tmp_path / "file" / "below", tmp_path / "new" / "below"])
        assert self._code() == (b"code", True)
        assert (tmp_path / "new" / "below" / "x.o").exists()
        assert self._code() == (b"code", False)

    def test_nowhere_to_write_is_no_error(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setattr(object_cache, "folders", lambda: [tmp_path / "file" / "below"])
        assert self._code() == self._code() == (b"code", True)

    def test_a_file_that_cannot_be_put_in_place_is_removed(self, tmp_path):
        (tmp_path / "x.o").mkdir()  # nothing can replace a folder
        assert self._code() == (b"code", True)
        assert [path.name for path in tmp_path.iterdir()] == ["x.o"]


def test_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert object_cache.folders() == [tmp_path]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert object_cache.folders() == [object_cache._KERNELS / "__pycache__", tmp_path / "triadbench"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert object_cache.folders()[1].parts[-2:] == (".cache", "triadbench")
