"""The models and providers that the app offers, each loaded once and shared by all visitors."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from triadbench.core.constants import PROVIDERS
from triadbench.core.errors import UserError
from triadbench.core.files import pretrained_path
from triadbench.export.predict.predictor import ChordPredictor, file_name

SHIPPED = {"shipped model": "fp32", "shipped model, int8": "int8", "shipped model, fp16": "fp16"}
_KEPT = 6
"""Loaded pairs of model and provider; one more takes the place of the one that was asked for longest ago."""


class Predictors:
    """Predictors by the names that the menus show.

    Args:
        model: a file of the user's own, the first in the menu; None: the shipped models alone.
        provider: the first in the menu.
        threads: of the CPU for one answer.

    Attributes:
        models, providers: the menus, in order; the first is what the app begins with.
    """

    def __init__(self, model: str | Path | None = None, provider: str = "cpu", threads: int = 1):
        self._threads, self._lock = threads, threading.Lock()
        self._loaded: dict[tuple[str, str], ChordPredictor] = {}
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._own = None if model is None else Path(model)
        shipped = [name for name, precision in SHIPPED.items() if _is_there(precision)]
        self.models = ([self._own.name] if self._own else []) + [name for name in shipped if not self._is_own(name)]
        self.providers = [provider, *(other for other in _offered() if other != provider)]
        self.get()

    def get(self, model: str | None = None, provider: str | None = None) -> ChordPredictor:
        """The predictor of two menu entries; None or "" is the menu's first.

        Raises:
            UserError: not in the menu, or cannot be had on this machine.
        """
        key = (self._known("model", model, self.models), self._known("provider", provider, self.providers))
        with self._lock:
            if key in self._loaded:
                self._loaded[key] = self._loaded.pop(key)  # the latest goes last
                return self._loaded[key]
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # whoever asks for the same waits; the others go on
            if key not in self._loaded:
                loaded = self._load(*key)
                with self._lock:
                    self._loaded[key] = loaded
                    while len(self._loaded) > _KEPT:
                        self._loaded.pop(next(iter(self._loaded)))
            return self._loaded.get(key) or self.get(*key)

    def _is_own(self, name: str) -> bool:
        return self._own is not None and self._own.name == name

    def _known(self, what: str, name: str | None, menu: list[str]) -> str:
        if name in (None, ""):
            return menu[0]
        if name not in menu:
            raise UserError(f"{what}={str(name)[:80]!r} is not in the menu; choose from {', '.join(menu)}")
        return name

    def _load(self, model: str, provider: str) -> ChordPredictor:
        if self._is_own(model):
            loaded = ChordPredictor(self._own, provider, threads=self._threads)
        else:
            loaded = ChordPredictor(provider=provider, precision=SHIPPED[model], threads=self._threads)
        if loaded.info.task != "both":
            raise UserError(f"{loaded.path.name} answers for the {loaded.info.task} only; naming a chord needs both")
        loaded.warm_kernel()
        return loaded


def _is_there(precision: str) -> bool:
    return any(pretrained_path(file_name(provider, precision)).is_file() for provider in ("cpu", "cuda"))


def _offered() -> list[str]:
    """Providers that can be had here, as far as this is seen without loading any."""
    gpu = os.path.exists("/proc/driver/nvidia/version") or os.name == "nt"
    return [name for name in PROVIDERS if gpu or name not in ("cuda", "tensorrt")]
