"""Ear training and practice, without their page: what is asked, whether it is right, and one visitor's score."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from triadbench.core.models.chords import ROOTS, TYPES

LEVELS = ("type", "type and root")
_random = secrets.SystemRandom()
"""Not seeded: a visitor must not be able to tell the next chord from the last."""


@dataclass(frozen=True)
class Question:
    """A chord that was played or asked for.

    Attributes:
        root, type: names of `core.models.chords`. octave: of the root. instrument: seed of our synthesiser.
        answered: whether it has counted already.
    """

    root: str
    type: str
    octave: int
    instrument: int
    answered: bool = False


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
    while True:
        root, chord_type = _random.choice(ROOTS), _random.choice(TYPES)
        if before is None or (root, chord_type) != (before.root, before.type):
            return Question(root, chord_type, _random.choice((3, 4)), _random.randrange(1 << 20))


def check(question: Question, level: str, chord_type: str | None, root: str | None) -> bool:
    """Whether an ear-training answer is right. Any note of an augmented triad is its root to the ear."""
    if level == "type":
        return chord_type == question.type
    return chord_type == question.type and root is not None and _same_root(root, question)


def heard_right(question: Question, root: str | None, chord_type: str | None) -> bool:
    """Whether what the model heard is the chord that was asked for."""
    return chord_type == question.type and root is not None and _same_root(root, question)


def done(question: Question) -> Question:
    """The question once it has been answered."""
    return replace(question, answered=True)


def _same_root(root: str, question: Question) -> bool:
    apart = (ROOTS.index(root) - ROOTS.index(question.root)) % 12
    return apart == 0 or (question.type == "augmented" and apart in (4, 8))
