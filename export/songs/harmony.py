"""Key and common progressions of a sequence of chords."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES
from triadbench.core.models.spelling import MODES, key_name, read_chord
from triadbench.core.models.vocabulary import QUALITIES

# How well each of the twelve notes fits a key, from its tonic up, as listeners rated it (Krumhansl and Kessler, 1982).
_PROFILES = np.array(
    [
        [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
        [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
    ]
)
# Triads of a key, (semitones above the tonic, type): of the scale, and in minor of its raised seventh as well.
_OWN = (
    {(0, 0), (2, 1), (4, 1), (5, 0), (7, 0), (9, 1), (11, 2)},
    {(0, 1), (2, 2), (3, 0), (5, 1), (7, 1), (7, 0), (8, 0), (10, 0), (11, 2), (3, 3)},
)
_CERTAINTY = 8.0
"""Scales scores of keys, of about -1 to 3, to log likelihoods: a song of one progression gets 0.5 to 0.95."""


def find_key(chords: Sequence[tuple[str, float]]) -> tuple[str | None, float | None]:
    """The likeliest of 24 keys, as "F# minor", and its probability among them; (None, None) where there is no chord.

    A key scores high if its profile correlates with the time that each note sounds, if the chords ((symbol, seconds)
    in order) are its own, and if its tonic triad sounds for long, first or last.
    """
    timed_chords = [(chord, seconds) for symbol, seconds in chords if (chord := read_chord(symbol)) and seconds > 0]
    if not timed_chords:
        return None, None
    shares, notes = np.zeros((len(ROOTS), len(TYPES))), np.zeros(len(ROOTS))  # of the time that triads, notes sound
    total_s = sum(seconds for _, seconds in timed_chords)
    for chord, seconds in timed_chords:
        quality = QUALITIES[chord.quality]
        if quality.triad is not None:
            shares[chord.root, quality.triad] += seconds / total_s
        notes[[(chord.root + step) % len(ROOTS) for step in quality.semitones]] += seconds / total_s
    first_and_last = timed_chords[0][0], timed_chords[-1][0]
    scores = np.empty((2, 12))
    for mode, tonic in np.ndindex(2, 12):
        degrees = np.roll(shares, -tonic, axis=0)
        own = sum(degrees[degree] for degree in _OWN[mode])
        ends = sum((chord.root, QUALITIES[chord.quality].triad) == (tonic, mode) for chord in first_and_last)
        fit = np.corrcoef(np.roll(_PROFILES[mode], tonic), notes)[0, 1] if notes.std() > 0 else 0.0
        scores[mode, tonic] = fit + own + 0.3 * degrees[0, mode] + 0.1 * ends
    likelihood = np.exp(_CERTAINTY * (scores - scores.max()))
    mode, tonic = divmod(int(scores.argmax()), 12)
    return key_name(tonic, MODES[mode]), float(likelihood.max() / likelihood.sum())


def find_progressions(
    chords: Sequence[str], roman: Sequence[str | None], *, lengths: Sequence[int] = (4, 3), most: int = 5
) -> list[dict]:
    """The most common sequences of chords, without "N" in between: {"roman", "chords", "count"}, most common first.

    Rotations of one circle (I V vi IV and V vi IV I) count as one, written as it most often begins; sequences that
    occur once are left out, and so are shorter ones that a longer one holds.
    """
    progressions: list[dict] = []
    for length in lengths:
        counts: Counter = Counter()
        for start in range(len(chords) - length + 1):
            window = tuple(chords[start : start + length])
            if NO_CHORD not in window and len(set(window)) > 1:
                counts[window, tuple(roman[start : start + length])] += 1
        seen: set[tuple] = set()
        for (window, numerals), count in counts.most_common():
            rotations = {window[k:] + window[:k] for k in range(length)}
            inside = any(" ".join(window) in " ".join(2 * entry["chords"]) for entry in progressions)
            if count >= 2 and not rotations & seen and not inside:
                seen.add(window)
                progressions.append({"roman": list(numerals), "chords": list(window), "count": count})
    return sorted(progressions, key=lambda entry: (-entry["count"], -len(entry["chords"])))[:most]
