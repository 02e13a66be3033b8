"""Records: what was measured, every raw sample and the machine, one JSON object a line.

A record file is only ever appended to. A line is written in one piece and flushed to the disk, so that a killed run
loses at most the line it was writing; that half line is reported by `load` and stepped over by the next `append`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.errors import UserError

if TYPE_CHECKING:
    from triadbench.core.timing import Timing
    from triadbench.kernels.compare import Comparison

SCHEMA = 1
_FIELDS: dict[str, Any] = {"schema": int, "name": str, "parameters": dict, "unit": str, "samples": list}
_FIELDS |= {"first_call": int | float | None, "error": dict | None, "environment": dict}


def make(
    name: str,
    *,
    parameters: dict,
    unit: str,
    samples: Iterable[float],
    environment: dict,
    first_call: float | None = None,
    error: dict | None = None,
    **more: Any,
) -> dict:
    """A record.

    Args:
        name: what was measured, as "mel" or "forward"; parameters: all that distinguishes this case.
        unit: of `samples`, every raw one, and of `first_call`, the first call apart; None where it means nothing.
        environment: `bench.machine.environment()`.
        error: the comparison with the reference on the timed inputs; None where there is no reference.
        more: further values, as work counted (`flops`, `bytes_moved`) or machine peaks.
    """
    record = {"schema": SCHEMA, "name": name, "parameters": parameters, "unit": unit}
    record |= {"samples": [float(value) for value in samples], "first_call": first_call, "error": error}
    record |= {**more, "environment": environment}
    _check(record)
    return record


def timing_fields(timed: Timing, clips: int) -> dict[str, Any]:
    """What a record holds of a timing of `clips` clips besides its samples; `first_call` in milliseconds."""
    fields = {name: getattr(timed, name) for name in ("calls_per_sample", "other_cores", "disturbed")}
    audio_s = clips * CLIP_SAMPLES / SAMPLE_RATE
    return {"first_call": 1e3 * timed.first_call_s, **fields, "clips": clips, "audio_s": audio_s}


def error_fields(comparison: Comparison) -> dict[str, Any]:
    """A record's `error`: the comparison with the float64 reference."""
    peak, rms = comparison.peak_relative, comparison.rms_relative
    return {"reference": "float64", "peak_relative": peak, "rms_relative": rms}


def reason_of(error: BaseException) -> str:
    """An error as one line of at most 300 characters, for a record's `reason`."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."


def append(record: dict, path: str | os.PathLike) -> None:
    """Add one record to a file; as `append_all`."""
    append_all([record], path)


def append_all(records: Iterable[dict], path: str | os.PathLike) -> None:
    """Add records that belong together, in one piece: a killed run leaves all of them or, nearly always, none.

    The file is made with its folder if need be, and the records are on the disk when this returns.
    Raises ValueError where a record lacks a field, or holds NaN or infinity, and UserError where the disk refuses.
    """
    lines = b""
    for record in records:
        _check(record)
        lines += (json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n").encode()
    if not lines:
        return
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the half line of a killed run
                    lines = b"\n" + lines
            if file.write(lines) != len(lines):
                raise OSError("the disk took only a part")
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: cannot append a record ({error.strerror or error})") from error


def load(path: str | os.PathLike) -> tuple[list[dict], list[str]]:
    """(records in file order, problems): a problem names a line that is left out, as "records.jsonl:7: not JSON (...)".

    Raises UserError where the file cannot be read.
    """
    path, records, problems = Path(path), [], []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot read records ({error.strerror})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
            _check(record)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            half = "; a half line is left by a run that was killed" if line.startswith(b"{") else ""
            problems.append(f"{path.name}:{number}: not JSON ({error}){half}")
        except (ValueError, RecursionError) as error:  # recursion: brackets within brackets without end
            problems.append(f"{path.name}:{number}: {error}")
        else:
            records.append(record)
    return records, problems


def _check(record: object) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"a record is a JSON object, not {type(record).__name__}")
    for field, kind in _FIELDS.items():
        if field not in record:
            raise ValueError(f"field {field!r} is missing")
        if not isinstance(record[field], kind) or isinstance(record[field], bool):
            raise ValueError(f"field {field!r} is a {type(record[field]).__name__}")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in record["samples"]):
        raise ValueError("field 'samples' holds something that is not a number")
    if record["schema"] > SCHEMA:
        raise ValueError(f"schema {record['schema']} is newer than this version reads ({SCHEMA})")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
