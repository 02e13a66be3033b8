"""What the tabs share: the models, the limits, and how a mistake reaches the visitor."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import gradio as gr

from triadbench.core.errors import UserError
from triadbench.export.app import answer_page
from triadbench.export.app.predictors import Predictors
from triadbench.export.app.song_queue import Turns
from triadbench.export.app.uploads import Heard, Limits, friendly, hear
from triadbench.export.predict.predictor import ChordPredictor

_log = logging.getLogger("triadbench.app")


class Handlers:
    """Args:
    predictors: of the menus.
    limits: of what is sent.
    folder: for files of visitors; each gets a random folder of its own inside. What lies there is deleted in time.
    at_once: clips that are answered at the same time.

    Attributes:
        songs: their turns; closed when the app is.
    """

    def __init__(self, predictors: Predictors, limits: Limits, folder: Path, at_once: int = 2):
        self.predictors, self.limits, self.folder, self.at_once = predictors, limits, folder, at_once
        self.songs = Turns()

    def hear(self, audio: str | None, model: str | None, provider: str | None) -> tuple[Heard, ChordPredictor]:
        """The answer for a clip, and who gave it. Raises UserError."""
        predictor = self.predictors.get(model, provider)
        return hear(audio, predictor, self.limits), predictor

    @staticmethod
    def mistake(error: Exception) -> str:
        """HTML of the friendly line of what went wrong."""
        return answer_page.mistake(told(error))

    def new_folder(self) -> Path:
        """A random folder for one answer's files."""
        return Path(tempfile.mkdtemp(prefix="answer-", dir=self.folder))

    @staticmethod
    def drop_folder(folder: Path) -> None:
        """Delete a folder of `new_folder`."""
        shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def upload(component):
        """A component that takes files of visitors, and no addresses: the server fetches nothing for anyone."""
        move = component.async_move_resource_to_block_cache

        async def own_files_only(path):
            if "://" in str(path or ""):
                raise gr.Error(
                    "this server fetches nothing from elsewhere; send the file itself", print_exception=False
                )
            return await move(path)

        component.async_move_resource_to_block_cache = own_files_only
        return component


def told(error: Exception) -> str:
    """The friendly line of an error; what is no mistake of the visitor's is logged in full."""
    if not isinstance(error, UserError):
        _log.error("an answer failed", exc_info=error)
    return friendly(error)


def raised(error: Exception) -> gr.Error:
    """The same for callers of the API."""
    return gr.Error(told(error), print_exception=False, title="Not answered")
