"""The whole page: title, menus and tabs, in fonts that every computer has."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from triadbench.export.app import api, clip_tab, ear_tab, practice_tab, song_tab
from triadbench.export.app.handlers import Handlers

_HERE = Path(__file__).resolve().parent
TITLE = "triadbench"
_TITLE = (
    "# Which chord is this?\nTriads by ear, by model, and by you. All of it stays on the computer that runs this page."
)
CSS = (_HERE / "style.css").read_text(encoding="utf-8")
"""Of our own parts; Gradio puts it under its page, above its own rules."""
HEAD = (
    '<meta name="referrer" content="no-referrer">'
    # What is around that page, and the dark theme, are out of the reach of rules under it.
    f"<style>{(_HERE / 'frame.css').read_text(encoding='utf-8')}</style>"
    f"<script>{(_HERE / 'player.js').read_text(encoding='utf-8')}</script>"
)


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the system's fonts: its own would be fetched, or miss offline."""
    sans, mono = ("system-ui", "Segoe UI", "Roboto", "sans-serif"), ("ui-monospace", "Consolas", "monospace")
    made = gr.themes.Base(primary_hue="indigo", neutral_hue="slate", text_size="lg", font=sans, font_mono=mono)
    return made.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


def build(handlers: Handlers, delete_after_s: int) -> gr.Blocks:
    """The app, not yet served; files of visitors are deleted once they are older than `delete_after_s`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, delete_after_s)) as blocks:
        gr.Markdown(_TITLE)
        chosen = clip_tab.menus(handlers)
        with gr.Tab("Clip", id="clip"):
            clip_tab.draw(handlers, chosen)
        with gr.Tab("Song", id="song"):
            song_tab.draw(handlers, chosen)
        with gr.Tab("Ear training", id="ear"):
            ear_tab.draw(handlers)
        with gr.Tab("Practice", id="practice"):
            practice_tab.draw(handlers, chosen)
        api.draw(handlers)
    return blocks
