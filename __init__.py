"""Names the chord in a piece of audio, and measures, down to the kernel, what doing so costs."""

import os

from triadbench.core.constants import VERSION as __version__

__all__ = ["__version__"]

# ONNX Runtime reports its use and keeps a data base of it in the home folder, unless this is set when it is imported:
# by us or, as torch's exporter does, by another package. Nothing of ours leaves the machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
