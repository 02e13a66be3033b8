"""What cannot be written is refused before anything is measured, and nothing is left behind by looking."""

from __future__ import annotations

import os

import click
import pytest

from triadbench.bench.outputs import check_page, check_writable, write_page
from triadbench.core.errors import UserError


@pytest.mark.parametrize("appended", [True, False], ids=["appended", "renamed"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "folder is a folder, .* name a file with --records"),
        ("file/r.jsonl", r"cannot be written \(.*\); choose another --records"),
        ("x" * 300, r"cannot be written \(File name too long\); choose another --records"),
        ("pipe", "pipe is no ordinary file"),
    ],
    ids=["folder", "below a file", "long name", "pipe"],
)
def test_what_cannot_be_written(tmp_path, name, message, appended):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    if name == "pipe":
        os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=message):
        check_writable(tmp_path / name, "--records", appended=appended)


def test_a_page_is_named_as_one(tmp_path):
    check_page(tmp_path / "page.HTML")
    with pytest.raises(click.UsageError, match="page.txt: the page is HTML; give a name that ends in .html"):
        check_page(tmp_path / "page.txt")


def test_a_link_to_nowhere_cannot_be_appended_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "none" / "r.jsonl")
    check_writable(tmp_path / "link")  # a page takes the link's place
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / "link", appended=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_is_not_ours(tmp_path):
    (tmp_path / "r.jsonl").touch(0o400)
    check_writable(tmp_path / "r.jsonl")
    with pytest.raises(UserError, match="Permission denied"):
        check_writable(tmp_path / "r.jsonl", appended=True)


def test_looking_changes_nothing(tmp_path):
    old = tmp_path / "old.jsonl"
    old.write_text("{}\n")
    for appended in (True, False):
        check_writable(old, appended=appended)
        check_writable(tmp_path / "new" / "r.jsonl", appended=appended)
    assert old.read_text() == "{}\n" and not list((tmp_path / "new").iterdir())


def test_a_page_whose_package_is_missing_costs_no_measurement(tmp_path):
    def page(name="plotly"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    result = write_page(page, tmp_path / "p.html", tmp_path / "r.jsonl", {}, 0.0)
    line = 'the page needs plotly; pip install "triadbench[study]"'
    assert (result["page"], result["why_no_page"]) == (None, line) and not list(tmp_path.iterdir())
    with pytest.raises(ModuleNotFoundError):
        write_page(lambda: page("triadbench.gone"), tmp_path / "p.html", tmp_path / "r.jsonl", {}, 0.0)
    assert write_page(lambda: "text", tmp_path / "p.html", tmp_path / "r.jsonl", {}, 0.0)["page"]
    assert (tmp_path / "p.html").read_text() == "text"
