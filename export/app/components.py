"""Parts of the page that several tabs share."""

from collections.abc import Sequence
from typing import Any, Literal

import gradio as gr

from triadbench.export.app.recognition import Recogniser

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Options of an event of the page itself, which is no part of the API."""


def own_files_only(component):
    """A component that takes files of visitors, and no addresses: the server fetches nothing for anyone."""
    move = component.async_move_resource_to_block_cache

    async def move_file(path):
        if "://" in str(path or ""):
            raise gr.Error("this server fetches nothing from elsewhere; send the file itself", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_file
    return component


def clip_input(label: str, elem_id: str, sources: list[Literal["upload", "microphone"]]) -> gr.Audio:
    """Takes a clip: a file, or a recording."""
    options: dict[str, Any] = {"type": "filepath", "interactive": True, "editable": False, "buttons": []}
    return own_files_only(gr.Audio(sources=sources, label=label, elem_id=elem_id, **options))


def examples(paths: Sequence[object], component: gr.components.Component, labels: Sequence[str], elem_id: str) -> None:
    """Buttons that put a shipped example into a component."""
    gr.Examples(
        [[str(path)] for path in paths],
        [component],
        example_labels=list(labels),
        label="Examples" if len(paths) > 1 else "Example",
        elem_id=elem_id,
        cache_examples=False,
        api_visibility="private",
    )


def event_limits(recogniser: Recogniser, queue: str) -> dict[str, Any]:
    """Options of an event: how many are answered at the same time from each queue."""
    return {"concurrency_id": queue, "concurrency_limit": recogniser.at_once}
