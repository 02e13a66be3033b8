"""ONNX Runtime sessions that run where they were asked to run, and say so node by node.

ONNX Runtime goes on with the CPU where a GPU provider cannot start, and prints a warning at most. Here a session on a
GPU is opened, makes its first run with the profiler on, and is given out only if the profile shows every node on the
provider that was asked for, shape arithmetic excepted, which belongs on the CPU. Needs neither PyTorch nor onnx.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import json
import numbers
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, ONNX_PROVIDERS, usable_cores
from triadbench.core.errors import UserError
from triadbench.core.files import check_model_file
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.prediction import Scores, is_silent, softmax
from triadbench.core.models.vocabulary import N_CLASSES
from triadbench.export.predict.metadata import ExportInfo, check_seal

_WAY_OUT = "use --provider cpu"
_ANEW = "get it anew, or make it with `export`"
_SHAPE_TYPES = {"int64", "int32", "bool"}
_SILENT = 4  # ONNX Runtime's severity "fatal": our own errors say what goes wrong
_PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?")

Outputs = dict[str, np.ndarray]


class Model:
    """What answers for waveforms: an exported file, or a checkpoint; `info` is what it says of itself, `front_end` what
    makes its mel spectrograms: "graph" (the file itself) or "kernel"."""

    path: Path
    info: ExportInfo
    front_end = "graph"

    def run(self, values: np.ndarray) -> Outputs:
        """Outputs by name for "waveform" (batch, samples) or "mel" (batch, n_mels, n_frames), float32, contiguous.
        Raises UserError: what runs the model fails (no memory left, for one)."""
        raise NotImplementedError

    def scores(self, waveforms: np.ndarray) -> Scores:
        """Of waveforms (batch, samples) float32, contiguous. Raises UserError: as `run`; or it answers with another
        shape or with numbers that are not finite."""
        outputs, n, task, silent = self.run(waveforms), len(waveforms), self.info.task, is_silent(waveforms)

        def output(name: str, *shape: int) -> np.ndarray:
            values = np.asarray(outputs[name], np.float32)
            what = "" if np.isfinite(values).all() else "numbers that are not finite"
            if values.shape != (n, *shape):
                what = f"shape {values.shape}, not {(n, *shape)}"
            if what:
                raise UserError(f"{self.path.name}: a damaged model file (its answer has {what}); {_ANEW}")
            return values

        if task == "type":
            return Scores(output("type_probabilities", len(TYPES)), None, None, silent)
        if task == "root":
            return Scores(None, output("root_probabilities", len(ROOTS)), None, silent)
        joint = softmax(output("logits", len(ROOTS), len(TYPES)))
        chords = bass = None
        if self.info.vocabulary:
            chords = softmax(output("chord_logits", N_CLASSES))
            bass = output("bass_probabilities", len(ROOTS))
        return Scores(joint.sum(axis=1), joint.sum(axis=2), joint, silent, chords, bass)


class OnnxModel(Model):
    """One exported ONNX file, open on one provider.

    Args:
        path, provider: the file, on "cpu", "cuda" or "tensorrt".
        threads: of the CPU, for one run; None: one a core that this process may use.
        options: of the provider, in ONNX Runtime's words; they go before ours.
        engine_cache: folder that keeps TensorRT's engines, which take minutes to build.

    Raises:
        UserError: the provider cannot be had, or some node runs elsewhere; the file is missing, damaged or another
            program's.
    """

    def __init__(
        self,
        path: str | Path,
        provider: str = "cpu",
        *,
        threads: int | None = None,
        options: dict[str, str] | None = None,
        engine_cache: str | Path | None = None,
    ):
        check_choice("provider", provider, ONNX_PROVIDERS)
        self.path, self.provider = Path(path), provider
        self.threads = usable_cores() if threads is None else whole_number("threads", threads, 1)
        if provider != "cpu" and (reason := why_unavailable(provider)):
            raise UserError(f"provider {provider}: {reason}; {_WAY_OUT}")
        self._providers = _providers(provider, options or {}, engine_cache, ".fp16" in self.path.name)
        self._placement: Placement | None = None
        if provider == "cpu":
            self.session = self._open(load_onnxruntime().SessionOptions())
        else:
            self.session, self._placement = self._open_and_watch()
            if strangers := self._placement.strangers:
                reason = f"{len(strangers)} nodes do not run on {provider} ({', '.join(strangers[:3])})"
                way_out = f"give the file made for GPUs (chordnet.batch.onnx), or {_WAY_OUT}"
                raise UserError(f"{self.path.name}: {reason}; {way_out}")
        self.info = _info_of(self.session, self.path)

    def run(self, values: np.ndarray) -> Outputs:
        return self._run(self.session, self.info, values)

    def bind(self, values: np.ndarray) -> Bound:
        """The same run with input and outputs already in the provider's memory, to be timed without copies. Raises
        UserError: that memory is full."""
        try:
            return Bound(self, values)
        except Exception as error:  # as in `run`
            raise UserError(f"{self.path.name} on {self.provider}: {error_line(error)}") from error

    def describe_placement(self) -> Placement:
        """Where each node ran, in the session's first run; on the CPU in that of a second session, opened for this.
        Raises UserError: the temporary folder takes no file."""
        if self._placement is None:
            _, self._placement = self._open_and_watch()
        return self._placement

    def _open(self, settings: Any) -> Any:
        runtime = load_onnxruntime()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        # Threads that wait awake took twice the CPU time of those that sleep, for operators as small as these.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = _SILENT
        check_model_file(self.path, "; make it with `export`, or give --model FILE")
        try:
            session = runtime.InferenceSession(str(self.path), settings, providers=self._providers, enable_fallback=0)
        except Exception as error:  # whatever its reader or the provider meets
            reason = f"{self.path} on {self.provider}: {error_line(error)}; {_WAY_OUT}"
            if self.provider == "cpu":
                reason = f"{self.path}: not an ONNX model that can be run ({error_line(error)}); {_ANEW}"
            raise UserError(reason) from error
        asked, first = ONNX_PROVIDERS[self.provider], session.get_providers()[0]
        if first != asked:
            reason = f"ONNX Runtime could not start {asked} and would run on {first}"
            raise UserError(f"provider {self.provider}: {reason}; {_WAY_OUT}")
        return session

    def _open_and_watch(self) -> tuple[Any, Placement]:
        """A session after its first run, on a clip of silence, and where that ran."""
        from triadbench.kernels.scratch import scratch_folder

        settings = load_onnxruntime().SessionOptions()
        settings.enable_profiling = True
        try:
            with scratch_folder() as folder:
                settings.profile_file_prefix = os.path.join(folder, "run")
                session = self._open(settings)
                try:
                    info = _info_of(session, self.path)
                    shape: tuple[int, ...] = (1, info.samples or CLIP_SAMPLES)
                    if info.input_name == "mel":
                        shape = (1, info.spec.n_mels, info.spec.n_frames(shape[1]))
                    self._run(session, info, np.zeros(shape, np.float32))
                finally:
                    profile = session.end_profiling()
                events = json.loads(Path(profile).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"no profile of the first run ({error}); set TMPDIR to a folder with room") from error
        return session, placement_of(events, self.provider)

    def _run(self, session: Any, info: ExportInfo, values: np.ndarray) -> Outputs:
        try:
            outputs = session.run(info.output_names, {info.input_name: values})
        except Exception as error:  # its exceptions have no common class of their own
            raise UserError(f"{self.path.name} on {self.provider}: {error_line(error)}") from error
        return dict(zip(info.output_names, outputs, strict=True))


class Bound:
    """A run whose input and outputs stay where the provider computes. Call it; then ask for `outputs()`."""

    def __init__(self, model: OnnxModel, values: np.ndarray):
        self._model, device = model, "cpu" if model.provider == "cpu" else "cuda"
        values = np.ascontiguousarray(values, np.float32)
        self._input = load_onnxruntime().OrtValue.ortvalue_from_numpy(values, device, 0)
        self._binding = model.session.io_binding()
        self._binding.bind_ortvalue_input(model.info.input_name, self._input)
        for name in model.info.output_names:
            self._binding.bind_output(name, device, 0)

    def __call__(self) -> None:
        """One run; it has ended when this returns."""
        self._model.session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def outputs(self) -> Outputs:
        """Those of the last run, copied to the CPU's memory."""
        return dict(zip(self._model.info.output_names, self._binding.copy_outputs_to_cpu(), strict=True))


@dataclass(frozen=True)
class Placement:
    """Where the nodes of one session ran.

    Attributes:
        nodes: {provider: number of nodes}, by our names ("cpu", "cuda", "tensorrt"). TensorRT's engine is one node.
        shape_nodes, memcpy: nodes on the CPU that work on shapes alone beside a GPU, and copies between the two.
        strangers: names of nodes that compute elsewhere than on the provider asked for.
    """

    nodes: dict[str, int]
    shape_nodes: int
    memcpy: int
    strangers: tuple[str, ...] = ()


def placement_of(events: list[dict], provider: str) -> Placement:
    """Of the events in ONNX Runtime's profile of a session on `provider`."""
    ours = {theirs: name for name, theirs in ONNX_PROVIDERS.items()}
    ran: dict[tuple[str, str], dict] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in arguments and event["name"].endswith("_kernel_time"):
            ran.setdefault((event["name"], arguments.get("op_name", "")), arguments)
    # TensorRT hands to CUDA what it cannot build an engine of.
    allowed = [ONNX_PROVIDERS[name] for name in ((provider, "cuda") if provider == "tensorrt" else (provider,))]
    nodes: Counter[str] = Counter()
    shape_nodes, memcpy, strangers = 0, 0, []
    for (name, operator), arguments in ran.items():
        where = arguments["provider"]
        nodes[ours.get(where, where)] += 1
        if operator.startswith("Memcpy"):
            memcpy += 1
        elif where in allowed:
            continue
        elif where == ONNX_PROVIDERS["cpu"] and _works_on_shapes(operator, arguments):
            shape_nodes += 1
        else:
            strangers.append(f"{name.removesuffix('_kernel_time')} ({operator}) on {ours.get(where, where)}")
    if not nodes:
        strangers.append("no node was seen to run")
    elif provider not in nodes and not strangers:
        strangers.append(f"no node runs on {provider}")
    return Placement(dict(nodes), shape_nodes, memcpy, tuple(strangers))


def _works_on_shapes(operator: str, arguments: dict) -> bool:
    """A node that asks for a shape, or has integers and single numbers alone coming in and going out."""
    entries = [*arguments.get("input_type_shape", []), *arguments.get("output_type_shape", [])]
    values = [value for entry in entries for value in entry.items()]
    return operator in ("Shape", "Size") or all(kind in _SHAPE_TYPES or set(shape) <= {1} for kind, shape in values)


def why_unavailable(provider: str) -> str | None:
    """Why a GPU provider cannot run here; None where nothing is seen to be missing."""
    runtime = load_onnxruntime()
    if ONNX_PROVIDERS[provider] not in runtime.get_available_providers():
        return f"this onnxruntime {runtime.__version__} is built without it; pip install onnxruntime-gpu"
    if reason := _why_no_gpu():
        return reason
    _preload()
    folder = Path(runtime.__file__).parent / "capi"
    for library in folder.glob(f"*onnxruntime_providers_{provider}.*"):
        with contextlib.suppress(OSError):  # what the other asks for
            ctypes.CDLL(str(next(folder.glob("*onnxruntime_providers_shared.*"))), ctypes.RTLD_GLOBAL)
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            missing = str(error).splitlines()[0]
            packages = {"cuda": "torch's CUDA packages", "tensorrt": "TensorRT 10 (pip install 'tensorrt-cu13<11')"}
            return f"a library that it needs does not load: {missing}; it comes with {packages[provider]}"
    return None


def _why_no_gpu() -> str | None:
    """Asks the driver itself, which needs no CUDA toolkit."""
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"no NVIDIA driver found ({name} cannot be loaded); on a machine with a GPU, install its driver"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = f", CUDA_VISIBLE_DEVICES={hidden!r}" if hidden is not None else ""
        return f"the NVIDIA driver finds no GPU (status {status}{shown}); check with nvidia-smi"
    return None


@functools.cache
def _preload() -> None:
    """Load CUDA's and cuDNN's libraries, once: those installed with PyTorch, so that both use the same."""
    runtime = load_onnxruntime()
    if hasattr(runtime, "preload_dlls"):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints what it misses
            runtime.preload_dlls()
    spec = importlib.util.find_spec("tensorrt_libs")
    for folder in spec.submodule_search_locations or () if spec else ():
        for pattern in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
            for library in Path(folder).glob(pattern):
                with contextlib.suppress(OSError):  # the provider's own library will say so
                    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _providers(provider: str, options: dict[str, str], engine_cache: str | Path | None, half: bool) -> list:
    # TF32 rounds products to 10 bits of mantissa: labels hold, but not the 1e-5 that the exports promise. Lengths
    # vary, and an exhaustive search for convolutions starts anew with each: the heuristic is near it and at once.
    cuda = {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    ours: dict[str, dict[str, str]] = {"cpu": {}, "cuda": cuda, "tensorrt": {"device_id": "0"}}
    tensorrt = ours["tensorrt"]
    if half:
        tensorrt["trt_fp16_enable"] = "1"
    if engine_cache is not None and provider == "tensorrt":
        folder = str(Path(engine_cache).resolve())
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot make this folder ({error.strerror}); choose another") from error
        tensorrt |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        tensorrt |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    ours[provider] |= options
    names = [provider, *{"cpu": (), "cuda": ("cpu",), "tensorrt": ("cuda", "cpu")}[provider]]
    return [(ONNX_PROVIDERS[name], ours[name]) for name in names]


@functools.cache
def load_onnxruntime() -> Any:
    """The module, kept from printing. Raises UserError where it cannot be imported."""
    try:
        import onnxruntime
    except ImportError as error:
        way_out = "pip install onnxruntime-gpu (or onnxruntime), or use --provider torch"
        raise UserError(f"onnxruntime cannot be imported ({error}); {way_out}") from error
    onnxruntime.set_default_logger_severity(_SILENT)
    return onnxruntime


def _info_of(session: Any, path: Path) -> ExportInfo:
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged metadata ({error.reason}); make it again with `export`") from error
    info = ExportInfo.from_metadata(metadata, str(path))
    inputs = [(value.name, value.type) for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    if inputs != [(info.input_name, "tensor(float)")] or not set(info.output_names) <= set(outputs):
        names = f"inputs {[name for name, _ in inputs]} and outputs {outputs}"
        raise UserError(f"{path}: its {names} are not what its metadata say; make it again with `export`")
    check_seal(path, "onnx")
    return info


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises UserError for a value that is none of the choices."""
    if value not in (valid := tuple(choices)):
        raise UserError(f"{name}={value!r} must be one of {', '.join(valid)}")


def whole_number(name: str, value: int, least: int) -> int:
    """Python's own of any kind of whole number, NumPy's among them; UserError for what is none or below `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UserError(f"{name}={value!r} must be a whole number from {least} on")
    return int(value)


def error_line(error: Exception, number: int = 0) -> str:
    """The first line of an error's message, or another, without ONNX Runtime's preamble."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[number]
    return _PREAMBLE.sub("", line)[:300].rstrip(". ")
