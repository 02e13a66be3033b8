"""The tab Song: drop a recording of any length, read its chords along with the playback, take them home."""

from __future__ import annotations

import gradio as gr

from triadbench.export.app import example_sounds, html
from triadbench.export.app.components import PRIVATE, examples, own_files_only
from triadbench.export.app.recognition import Recogniser
from triadbench.export.app.uploads import visitor_message

_HINT = "Drop a recording: its chords over time appear here, with files to take home."


def draw(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab inside the open gr.Blocks."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            song = own_files_only(
                gr.File(file_types=["audio"], label="Song: drop a file", elem_id="song-file", height=140)
            )
            examples([example_sounds.example(example_sounds.SONG)], song, [example_sounds.SONG], "song-examples")
            downloads = gr.File(
                label="Downloads", file_count="multiple", interactive=False, elem_id="song-downloads", visible=False
            )
        with gr.Column(scale=5, min_width=300):
            page = gr.HTML(html.hint(_HINT), elem_id="song-answer")

    def name_song(song, model, provider, progress=gr.Progress()):  # noqa: B008  (Gradio's way to ask for it)
        no_files = gr.File(value=None, visible=False)
        if not song:
            return html.hint(_HINT), no_files

        def report(done, total):
            progress((done, total) if total else None, desc="Listening")

        def report_place(place):
            progress(0, desc="One song before yours" if place == 1 else f"{place} songs before yours")

        try:
            answer = recogniser.name_song(song, model, provider, report, report_place)
        except Exception as error:
            return html.mistake(visitor_message(error)), no_files
        section = html.render("song", timeline=answer.timeline, audio=song, seconds=answer.seconds)
        return section, gr.File(value=answer.files, visible=True)

    options = {"concurrency_limit": None, "trigger_mode": "always_last", "show_progress_on": page, **PRIVATE}
    song.change(name_song, [song, *menus], [page, downloads], **options)
