"""Ear training and practice, without their page: what is asked, whether it is right, and one visitor's score."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.spelling import chord_name

_random = secrets.SystemRandom()
"""Not seeded: a visitor must not be able to tell the next chord from the last."""


def named(root: str, chord_type: str) -> str:
    """The name, as people write it, of the chord of these classes."""
    return chord_name(ROOTS.index(root), TYPES.index(chord_type))


@dataclass(frozen=True)
class Question:
    """A chord that was played or asked for, by the names of its classes in `core.models.chords`."""

    root: str
    type: str
    octave: int  # of the root
    instrument: int  # seed of our synthesiser
    answered: bool = False  # whether it has counted already

    @property
    def chord(self) -> str:
        """Its name as people write it: "D#dim", which has simpler notes than "Ebdim"."""
        return named(self.root, self.type)

    def is_right(self, chord_type: str | None, root: str | None, type_only: bool = False) -> bool:
        """Whether an answer is this chord. Any note of an augmented triad is its root to the ear."""
        if chord_type != self.type or type_only:
            return chord_type == self.type
        distances = (0, 4, 8) if self.type == "augmented" else (0,)
        return root is not None and (ROOTS.index(root) - ROOTS.index(self.root)) % 12 in distances


@dataclass(frozen=True)
class Score:
    """Of one visitor, since the page was opened."""

    right: int = 0
    asked: int = 0
    streak: int = 0

    def counted(self, is_right: bool) -> Score:
        """With one more answer."""
        return Score(self.right + is_right, self.asked + 1, self.streak + 1 if is_right else 0)

    def words(self) -> str:
        """As "3 of 4 right, 2 in a row"."""
        if not self.asked:
            return "no answer yet"
        return f"{self.right} of {self.asked} right" + (f", {self.streak} in a row" if self.streak > 1 else "")


def ask(before: Question | None = None) -> Question:
    """A random chord, another one than before."""
    chords = [
        (root, kind) for root in ROOTS for kind in TYPES if not before or (root, kind) != (before.root, before.type)
    ]
    return Question(*_random.choice(chords), _random.choice((3, 4)), _random.randrange(1 << 20))
