"""Names the chord in a piece of audio, and measures, down to the kernel, what doing so costs."""

from triadbench.core.constants import VERSION as __version__

__all__ = ["__version__"]
