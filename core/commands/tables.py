"""Results of inference as text."""

from __future__ import annotations

from collections.abc import Sequence


class ChordTable:
    """Results of `export.predict.bulk.infer_files` for reading, a line each: the columns' widths are known beforehand.

    Args:
        files: all that may come, for the width of their column.
        others: how many other chords are named.
    """

    def __init__(self, files: Sequence[str], others: int):
        self._widths = [max(len("file"), *(len(_printable(file)) for file in files)), 5, 7, 7, 7, 7, 0]
        self._others = others
        self._begun = False

    def line(self, result: dict) -> str:
        """With the header before the first; nothing for a file that failed."""
        if "error" in result:
            return ""
        others = [f"{other['chord']} {_percent(other['confidence'])}" for other in result["alternatives"]]
        shares = [_percent(result[key]) for key in ("type_confidence", "root_confidence", "agreement")]
        seconds = f"{result['duration_s']:.2f}"
        line = self._row(
            [_printable(result["file"]), result["chord"], *shares, seconds, ", ".join(others[: self._others])]
        )
        if self._begun:
            return line
        self._begun = True
        rules = ["-" * width for width in self._widths[:-1]]
        head = self._row(["file", "chord", "type", "root", "agree", "seconds", "or" if self._others else ""])
        return head + self._row([*rules, "-" * 12 * self._others]) + line

    def _row(self, texts: Sequence[str]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(texts, self._widths, strict=True)).rstrip() + "\n"


def _printable(name: str) -> str:
    """A file name as one line that a terminal takes for text."""
    return name if name.isprintable() else "".join(char if char.isprintable() else "?" for char in name)


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"
