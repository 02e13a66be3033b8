"""Files as faults leave them: bits flipped, bytes set, blocks lost, cut short or grown."""

import random
from collections.abc import Iterator


def damaged(whole: bytes, n: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`n` versions of a file, none of them equal to it, with what was done. A third of the places lie in the first or
    the last 2,000 bytes, where headers and seals are."""
    draw = random.Random(seed)
    size, made = len(whole), 0
    while made < n:
        near = min(size, 2000)
        at = draw.choice(
            [draw.randrange(near), size - 1 - draw.randrange(near), *(draw.randrange(size) for _ in range(4))]
        )
        content = bytearray(whole)
        kind = draw.choice(["bit", "bit", "bit", "byte", "zeros", "repeated", "cut", "grown", "swapped"])
        if kind == "bit":
            content[at] ^= 1 << draw.randrange(8)
        elif kind == "byte":
            content[at] = draw.randrange(256)
        elif kind == "zeros":
            content[at : at + 512] = bytes(len(content[at : at + 512]))
        elif kind == "repeated":
            content[at : at + 64] = content[max(at - 64, 0) : at][:64]
        elif kind == "cut":
            del content[at:]
        elif kind == "grown":
            content += draw.randbytes(1 + at % 100)
        else:
            other = draw.randrange(size)
            content[at], content[other] = content[other], content[at]
        if content != whole:
            made += 1
            yield f"{kind} at {at} of {size}", bytes(content)
