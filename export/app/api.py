"""What programs can call: /name_chord and /timeline, by gradio_client or any other HTTP client."""

from __future__ import annotations

import gradio as gr

from triadbench.export.app import song_tab
from triadbench.export.app.handlers import Handlers, raised


def draw(handlers: Handlers) -> None:
    """Add the endpoints to the open gr.Blocks; their components are not on the page."""

    def name_chord(audio, model, provider):
        try:
            heard, predictor = handlers.hear(audio, model, provider)
        except Exception as error:
            raise raised(error) from None
        timing = {"read_ms": round(heard.read_ms, 3), "model_ms": round(heard.model_ms, 3)}
        return {**heard.answer, "model": predictor.path.name, "provider": predictor.provider, **timing}

    def timeline(audio, model, provider):
        return song_tab.answer_call(handlers, audio, model, provider)

    with gr.Row(visible=False):
        audio = handlers.upload(gr.Audio(type="filepath", label="audio"))
        model, provider = gr.Textbox("", label="model"), gr.Textbox("", label="provider")
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")
        gr.Button().click(
            name_chord,
            [audio, model, provider],
            answer,
            api_name="name_chord",
            concurrency_id="clip",
            concurrency_limit=handlers.at_once,
            api_description="The chord of a clip of at most a minute. model and provider: as in the menus, or empty.",
        )
        gr.Button().click(
            timeline,
            [audio, model, provider],
            [answer, files],
            api_name="timeline",
            concurrency_limit=None,
            api_description="The chords of a song over time, and files of every format.",
        )
