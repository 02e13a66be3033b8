"""The models and providers that the app offers, each loaded once and shared by all visitors."""

import os
import threading

from triadbench.core.constants import PROVIDERS
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, model_name, pretrained_path
from triadbench.core.models.prediction import require_chords
from triadbench.export.predict.predictor import ChordPredictor, file_name, provider_of

_SHIPPED = {"shipped model": "fp32", "shipped model, int8": "int8", "shipped model, fp16": "fp16"}
_CHORDS = ["all chords", "triads alone"]
_MAX_LOADED = 6
"""Loaded predictors; one more takes the place of the one that was asked for longest ago."""


class Predictors:
    """Predictors by the names that the menus show.

    Args:
        model: of the user's own, as of `ChordPredictor`, the first in the menu; None: the shipped models alone.
        provider: the first in the menu; None: the one for the model.
        threads: of the CPU for one answer.

    Attributes:
        models, providers, chords: the menus, in order; the app begins with the first entries.
    """

    def __init__(self, model: ModelFiles | None = None, provider: str | None = None, threads: int = 1):
        self.threads, self._lock, self.chords = threads, threading.Lock(), _CHORDS
        self._loaded: dict[tuple[str, str, str], ChordPredictor] = {}
        self._loading: dict[tuple[str, str, str], threading.Lock] = {}
        self._own = {} if model is None else {model_name(model): model}
        self.models = list(self._own)
        for name, precision in _SHIPPED.items():
            on_disk = any(pretrained_path(file_name(device, precision)).is_file() for device in ("cpu", "cuda"))
            if on_disk and name not in self._own:
                self.models.append(name)
        has_gpu = os.path.exists("/proc/driver/nvidia/version") or os.name == "nt"
        offered = [name for name in PROVIDERS if has_gpu or name not in ("cuda", "tensorrt")]
        self.providers = list(dict.fromkeys([provider or provider_of(model), *offered]))
        self.get()

    def get(self, model: str | None = None, provider: str | None = None, chords: str | None = None) -> ChordPredictor:
        """The predictor of an entry of each menu; None or "" is the menu's first.

        Raises:
            UserError: not in the menu, or cannot be had on this machine.
        """
        pair = _entry("model", model, self.models), _entry("provider", provider, self.providers)
        key = *pair, _entry("chords", chords, self.chords)
        with self._lock:
            if key in self._loaded:
                self._loaded[key] = self._loaded.pop(key)  # the latest goes last
                return self._loaded[key]
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # requests for the same one wait; the others go on
            if key not in self._loaded:
                predictor = self._load(*key)
                with self._lock:
                    self._loaded[key] = predictor
                    while len(self._loaded) > _MAX_LOADED:
                        self._loaded.pop(next(iter(self._loaded)))
            return self._loaded.get(key) or self.get(*key)

    def _load(self, model: str, provider: str, chords: str) -> ChordPredictor:
        options: dict = {"precision": _SHIPPED.get(model, "fp32"), "triads": chords == _CHORDS[1]}
        predictor = ChordPredictor(self._own.get(model), provider, threads=self.threads, **options)
        require_chords(predictor.info.task, predictor.model_name)
        predictor.warm_kernel()
        return predictor


def _entry(menu: str, name: str | None, entries: list[str]) -> str:
    if name in (None, ""):
        return entries[0]
    if name not in entries:
        raise UserError(f"{menu}={str(name)[:80]!r} is not in the menu; choose from {', '.join(entries)}")
    return name
