"""The whole page: title, menus and tabs, in fonts that every computer has."""

from __future__ import annotations

import gradio as gr

from triadbench.export.app import FOLDER, api, clip_tab, ear_tab, practice_tab, song_tab
from triadbench.export.app.recognition import Recogniser

_TITLE = """# Which chord is this?
Triads by ear, by model, and by you. All of it stays on the computer that runs this page."""
CSS = (FOLDER / "style.css").read_text(encoding="utf-8")
"""Of our own parts; Gradio puts it under its page, above its own rules."""
HEAD = (
    '<meta name="referrer" content="no-referrer">'
    # Rules under Gradio's page do not reach what is around that page, nor the dark theme.
    f"<style>{(FOLDER / 'frame.css').read_text(encoding='utf-8')}</style>"
    f"<script>{(FOLDER / 'player.js').read_text(encoding='utf-8')}</script>"
)


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the system's fonts: its own would be fetched, or be missing offline."""
    sans, mono = ("system-ui", "Segoe UI", "Roboto", "sans-serif"), ("ui-monospace", "Consolas", "monospace")
    base = gr.themes.Base(primary_hue="indigo", neutral_hue="slate", text_size="lg", font=sans, font_mono=mono)
    return base.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


def build(recogniser: Recogniser) -> gr.Blocks:
    """The app, not yet served."""
    models, providers = recogniser.predictors.models, recogniser.predictors.providers
    with gr.Blocks(title="triadbench", analytics_enabled=False) as blocks:
        gr.Markdown(_TITLE)
        with gr.Accordion("Model and provider", open=False), gr.Row():
            menus = [
                gr.Dropdown(models, value=models[0], label="Model", elem_id="model", filterable=False),
                gr.Dropdown(
                    providers,
                    value=providers[0],
                    label="Provider (what computes)",
                    elem_id="provider",
                    filterable=False,
                ),
            ]
        with gr.Tab("Clip", id="clip"):
            clip_tab.draw(recogniser, menus)
        with gr.Tab("Song", id="song"):
            song_tab.draw(recogniser, menus)
        with gr.Tab("Ear training", id="ear"):
            ear_tab.draw(recogniser)
        with gr.Tab("Practice", id="practice"):
            practice_tab.draw(recogniser, menus)
        api.draw(recogniser)
    return blocks
