"""What the analyses of all records share: selecting them, figures in words, and the marks of doubtful timings."""

from collections.abc import Iterable, Sequence

from triadbench.core.timing import UNSTABLE_SPREAD, Timing

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
OTHER_PROGRAMS = " Other programs wanted the cores meanwhile, so times may be off."


def select(records: Sequence[dict], name: str, **parameters: object) -> list[dict]:
    """The records of one name whose parameters have these values."""
    return [
        record
        for record in records
        if record["name"] == name and all(record["parameters"].get(key) == value for key, value in parameters.items())
    ]


def badge(record: dict) -> str:
    """The mark of a doubtful timing: "disturbed" (other processes wanted its cores), "unstable" or ""."""
    return "disturbed" if record.get("disturbed") else "unstable" if is_unstable(record["samples"]) else ""


def is_unstable(samples: Sequence[float]) -> bool:
    """Whether the interquartile range is above `UNSTABLE_SPREAD` of the median; that takes three samples at least."""
    return len(samples) > 2 and Timing.from_samples(0.0, list(samples)).unstable


def disturbance(records: Sequence[dict]) -> list[str]:
    """A sentence on how many of these timings other processes disturbed, where there are some."""
    disturbed = [record for record in records if record.get("disturbed")]
    if not disturbed:
        return []
    loads = [record["other_cores"] for record in disturbed if record.get("other_cores") is not None]
    cores = f"{number(min(loads), 2)} to {number(max(loads), 2)} cores" if loads else "the cores"
    return [
        f"{len(disturbed)} of {len(records)} timings are disturbed: other processes used {cores} meanwhile. "
        "Such medians can be wrong by a hundred times, even without spread, and nothing is concluded from them; "
        "run again on an idle machine."
    ]


def steadiness(records: Sequence[dict]) -> list[str]:
    """A sentence on how many of these timings are unstable."""
    if not records:
        return []
    unstable = sum(is_unstable(record["samples"]) for record in records)
    percent = f"{100 * UNSTABLE_SPREAD:.0f} %"
    sentence = (
        f"{unstable} of {len(records)} timings are unstable (the middle half of the samples spans more than {percent} "
        "of the median), as on a machine that is busy with other work: trust ratios more than times, and run again."
    )
    steady = (
        f"All {len(records)} timings are steady: the middle half of the samples lies within {percent} of the median."
    )
    return [sentence if unstable else steady]


def number(value: float | None, digits: int = 3) -> str:
    """A figure with `digits` significant digits and no exponent, as "1,230" or "0.0456"; None is an em dash."""
    if value is None:
        return "—"
    if value == 0:
        return "0"
    decimals = digits - 1 - int(f"{abs(value):e}".partition("e")[2])
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def percent(share: float | None, decimals: int = 0) -> str:
    """A share as "12 %"; None is an em dash."""
    return "—" if share is None else f"{100 * share:.{decimals}f} %"


def span(values: Iterable[float], digits: int = 2) -> str:
    """Least and most, as "1.9 to 2.3", or one number where both read alike."""
    values = list(values)
    least, most = number(min(values), digits), number(max(values), digits)
    return least if least == most else f"{least} to {most}"


def scientific(value: float | None) -> str:
    """An error as "1.2e-07"; None is an em dash."""
    return "—" if value is None else f"{value:.1e}"
