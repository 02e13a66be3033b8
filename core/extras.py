"""Which extra of the package brings a library that only some commands need: `pip install "triadbench[study]"`."""

import importlib.util

_STUDY = "torch torchaudio soundfile numba llvmlite scipy plotly jinja2 markupsafe line_profiler psutil onnx onnxscript"
EXTRAS = {
    "study": [*_STUDY.split(), "mir_eval"],
    "app": ["gradio", "PIL", "httpx", "starlette"],
    "cluster": ["ray", "pyarrow"],
    "rivals": ["librosa", "nnAudio", "rocket_fft"],
}
"""Import packages of each extra in pyproject.toml, those that are named in more than one under the first."""
_NAMES = {"torch": "PyTorch", "gradio": "Gradio", "av": "PyAV (av)"}


BASE = ("numpy", "click", "av", "soxr", "mido", "tqdm", "onnxruntime")
"""Import packages of the base install, which a bare checkout may lack."""


def extra_of(package: str) -> str | None:
    """The extra that installs an import package; None for one that is no part of any."""
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def way_out(package: str) -> str:
    """The command that installs what is missing."""
    extra = extra_of(package)
    return f'pip install "triadbench[{extra}]"' if extra else f"pip install {package}"


def importable(package: str) -> bool:
    """Whether a package is installed, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def missing(error: ModuleNotFoundError, command: str) -> str | None:
    """One line for the user where `command` failed for a package of ours or of an extra; None where it is another."""
    package = (error.name or "").split(".")[0]
    if package not in BASE and extra_of(package) is None:
        return None
    return f"{command} needs {_NAMES.get(package, package)}; {way_out(package)}"
