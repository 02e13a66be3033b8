"""The whole page: title, menus and tabs, in fonts that every computer has."""

import gradio as gr

from triadbench.export.app import FOLDER, api, tabs
from triadbench.export.app.recognition import Recogniser

_TITLE = """# Which chord is this?
Triads by ear, by model, and by you. All of it stays on the computer that runs this page."""
# Gradio applies `CSS` to its page alone: rules for what is around that page, and for the dark theme, are in `HEAD`.
CSS, _FRAME, _PLAYER = ((FOLDER / name).read_text("utf-8") for name in ("style.css", "frame.css", "player.js"))
HEAD = f'<meta name="referrer" content="no-referrer"><style>{_FRAME}</style><script>{_PLAYER}</script>'


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the system's fonts: its own would be fetched, or be missing offline."""
    sans, mono = ("system-ui", "Segoe UI", "Roboto", "sans-serif"), ("ui-monospace", "Consolas", "monospace")
    return gr.themes.Base(primary_hue="indigo", neutral_hue="slate", text_size="lg", font=sans, font_mono=mono)


def build(recogniser: Recogniser) -> gr.Blocks:
    """The app, not yet served."""
    with gr.Blocks(title="triadbench", analytics_enabled=False) as blocks:
        gr.Markdown(_TITLE)
        with gr.Accordion("Model and provider", open=False), gr.Row():
            menus = [
                gr.Dropdown(entries, value=entries[0], label=label, elem_id=elem_id, filterable=False)
                for elem_id, label, entries in (
                    ("model", "Model", recogniser.predictors.models),
                    ("provider", "Provider (what computes)", recogniser.predictors.providers),
                )
            ]
        with gr.Tab("Clip", id="clip"):
            tabs.draw_clip(recogniser, menus)
        with gr.Tab("Song", id="song"):
            tabs.draw_song(recogniser, menus)
        with gr.Tab("Ear training", id="ear"):
            tabs.draw_ear_training(recogniser)
        with gr.Tab("Practice", id="practice"):
            tabs.draw_practice(recogniser, menus)
        api.draw(recogniser)
    return blocks
