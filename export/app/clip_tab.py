"""The tab Clip: record or drop a sound, and read its chord."""

from __future__ import annotations

import gradio as gr

from triadbench.export.app import example_sounds, html
from triadbench.export.app.components import PRIVATE, clip_input, event_limits, examples
from triadbench.export.app.recognition import Recogniser
from triadbench.export.app.uploads import visitor_message
from triadbench.export.predict.bulk import WINDOW_S

_HINT = "Record a chord, drop a file, or choose an example: the answer appears here."


def draw(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab inside the open gr.Blocks."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            audio = clip_input("Chord: drop a file or record one", "clip-audio", ["upload", "microphone"])
            paths = [example_sounds.example(name) for name in example_sounds.CLIPS]
            examples(paths, audio, list(example_sounds.CLIPS), "clip-examples")
        with gr.Column(scale=3, min_width=300):
            page = gr.HTML(html.hint(_HINT), elem_id="clip-answer")

    def name_clip(audio, model, provider):
        if not audio:
            return html.hint(_HINT)
        try:
            answer = recogniser.name_clip(audio, model, provider)
        except Exception as error:  # the visitor gets a line, whatever it was
            return html.mistake(visitor_message(error))
        return html.render("clip", answer=answer, window_s=WINDOW_S)

    changes = [audio.change, *(menu.change for menu in menus)]
    options = {"trigger_mode": "always_last", "show_progress": "minimal", **PRIVATE, **event_limits(recogniser, "clip")}
    gr.on(changes, name_clip, [audio, *menus], page, **options)
