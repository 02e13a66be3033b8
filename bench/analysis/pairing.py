"""Which measurements may be divided by one another, and what a ratio of two must state.

Two figures are paired only if they were measured on one machine, with the same number of threads and by the same
protocol. Different commits are allowed and never silent.
"""

from collections.abc import Iterable


def threads(record: dict) -> int | None:
    """Threads that torch computed with, or None where a record does not say."""
    count = record.get("environment", {}).get("torch_threads")
    return count if isinstance(count, int) else None


def threads_text(number: int | None) -> str:
    """ "1 thread", "2 threads", or "" where that is unknown."""
    return "" if number is None else f"{number} thread{'' if number == 1 else 's'}"


def code(record: dict) -> tuple[str | None, str | None]:
    """(commit, fingerprint) of the code that was measured; the fingerprint is of `core` and `kernels` alone."""
    commit, fingerprint = record.get("environment", {}).get("commit"), record.get("fingerprint")
    return (commit and str(commit)) or None, (fingerprint and str(fingerprint)) or None


def undisturbed(pairs: Iterable[dict]) -> list[dict]:
    """The pairs (with their two `rows`) of which other programs disturbed neither: of others no ratio is shown."""
    return [pair for pair in pairs if all(row["badge"] != "disturbed" for row in pair["rows"])]


def note(codes: Iterable[tuple[str | None, str | None]]) -> str:
    """A sentence for figures that were measured with different code, or "" where it was the same."""
    codes = list(codes)
    commits = list(dict.fromkeys(commit for commit, _ in codes))
    fingerprints = {fingerprint for _, fingerprint in codes}
    if len(commits) > 1:
        names = ", ".join(commit[:7] if commit else "an unknown one" for commit in commits)
        same = len(fingerprints) == 1 and None not in fingerprints
        rest = "; threads, versions, clips and the code that was timed are the same" if same else ""
        return f"Measured at different commits ({names}){rest}."
    if len(fingerprints) > 1:
        return "Measured with different code, clips or versions at one commit (the fingerprints differ)."
    return ""
