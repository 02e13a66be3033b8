"""The tab Clip: record or drop a sound, and read its chord."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from triadbench.export.app import answer_page, sounds
from triadbench.export.app.handlers import Handlers

_HINT = "Record a chord, drop a file, or choose an example: the answer appears here."


@dataclass(frozen=True)
class Menus:
    """Of model and provider; the tab Song uses them as well."""

    model: gr.Dropdown
    provider: gr.Dropdown


def menus(handlers: Handlers) -> Menus:
    """Draw the menus above the tabs."""
    predictors = handlers.predictors
    with gr.Accordion("Model and provider", open=False), gr.Row():
        model = gr.Dropdown(
            predictors.models, value=predictors.models[0], label="Model", elem_id="model", filterable=False
        )
        provider = gr.Dropdown(
            predictors.providers,
            value=predictors.providers[0],
            label="Provider (what computes)",
            elem_id="provider",
            filterable=False,
        )
    return Menus(model, provider)


def draw(handlers: Handlers, chosen: Menus) -> None:
    """Draw the tab inside the open gr.Blocks."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            audio = handlers.upload(
                gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Chord: drop a file or record one",
                    elem_id="clip-audio",
                    editable=False,
                    buttons=[],
                )
            )
            gr.Examples(
                [[str(sounds.example(name))] for name in sounds.CLIPS],
                [audio],
                example_labels=list(sounds.CLIPS),
                label="Examples",
                elem_id="clip-examples",
                cache_examples=False,
                api_visibility="private",
            )
        with gr.Column(scale=3, min_width=300):
            page = gr.HTML(answer_page.hint(_HINT), elem_id="clip-answer")

    def name_clip(audio, model, provider):
        if not audio:
            return answer_page.hint(_HINT)
        try:
            return answer_page.answer(*handlers.hear(audio, model, provider))
        except Exception as error:  # the visitor must be told something, whatever it was
            return handlers.mistake(error)

    gr.on(
        [audio.change, chosen.model.change, chosen.provider.change],
        name_clip,
        [audio, chosen.model, chosen.provider],
        page,
        api_visibility="private",
        concurrency_id="clip",
        concurrency_limit=handlers.at_once,
        show_progress="minimal",
        trigger_mode="always_last",
    )
