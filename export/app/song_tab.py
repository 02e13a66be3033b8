"""The tab Song: drop a recording of any length, read its chords along with the playback, take them home."""

from __future__ import annotations

import re
import time
from pathlib import Path

import gradio as gr

from triadbench.export.app import answer_page, sounds, timeline_page
from triadbench.export.app.clip_tab import Menus
from triadbench.export.app.handlers import Handlers, raised
from triadbench.export.app.uploads import check_length, checked

_HINT = "Drop a recording: its chords over time appear here, with files to take home."


def answer(handlers: Handlers, audio: str | None, model: str | None, provider: str | None, progress=None, told=None):
    """(timeline, paths of its files, seconds taken) of a visitor's song, when it is its turn.

    Args:
        progress: called with seconds done, and in all or None.
        told: called with how many songs are before this one.

    Raises:
        UserError: as `export.app.uploads.checked`, `export.app.song_queue.Turns` and `export.songs.timeline.find_timeline`.
    """
    from triadbench.export.songs.timeline import find_timeline

    predictor = handlers.predictors.get(model, provider)
    limit_s, way_out = 60 * handlers.limits.max_minutes, "cut it, or use `infer --timeline` on the command line"
    path = checked(audio, handlers.limits, limit_s, way_out)

    def report(done_s, total_s=None):
        handlers.songs.check()
        check_length(done_s, limit_s, way_out)  # of files whose header does not tell, or lies
        if progress is not None:
            progress(done_s, total_s)

    with handlers.songs.turn(told):
        begin = time.perf_counter()
        timeline = find_timeline(path, predictor, progress=report, name="this file")
        return timeline, files(handlers, timeline, path), time.perf_counter() - begin


def files(handlers: Handlers, timeline, audio: str) -> list[str]:
    """Every format in a random folder of its own, named after the song."""
    from triadbench.export.songs.files import FORMATS, write

    stem = re.sub(r"[^\w. -]", "_", Path(audio).stem)[:60].strip(". ") or "song"
    folder = handlers.new_folder()
    paths = [folder / f"{stem}.{format_}" for format_ in FORMATS]
    for path, format_ in zip(paths, FORMATS, strict=True):
        write(timeline, path, format_)
    return [str(path) for path in paths]


def draw(handlers: Handlers, chosen: Menus) -> None:
    """Draw the tab inside the open gr.Blocks."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            song = handlers.upload(
                gr.File(file_types=["audio"], label="Song: drop a file", elem_id="song-file", height=140)
            )
            gr.Examples(
                [[str(sounds.example(sounds.SONG))]],
                [song],
                example_labels=[sounds.SONG],
                label="Example",
                elem_id="song-examples",
                cache_examples=False,
                api_visibility="private",
            )
            downloads = gr.File(
                label="Downloads", file_count="multiple", interactive=False, elem_id="song-downloads", visible=False
            )
        with gr.Column(scale=5, min_width=300):
            page = gr.HTML(answer_page.hint(_HINT), elem_id="song-answer")

    def name_song(song, model, provider, progress=gr.Progress()):  # noqa: B008  (Gradio's way to ask for it)
        nothing = gr.File(value=None, visible=False)
        if not song:
            return answer_page.hint(_HINT), nothing
        try:

            def report(done, total=None, *_):
                progress((done, total) if total else None, desc="Listening")

            def told(before):
                progress(0, desc="One song before yours" if before == 1 else f"{before} songs before yours")

            timeline, written, seconds = answer(handlers, song, model, provider, report, told)
        except Exception as error:
            return handlers.mistake(error), nothing
        return timeline_page.page(timeline, song, seconds), gr.File(value=written, visible=True)

    song.change(
        name_song,
        [song, chosen.model, chosen.provider],
        [page, downloads],
        api_visibility="private",
        concurrency_limit=None,
        trigger_mode="always_last",
        show_progress_on=page,
    )


def answer_call(handlers: Handlers, audio: str | None, model: str, provider: str) -> tuple[dict, list[str]]:
    """For the API: the timeline as the JSON format has it, and the paths of the files. Raises gr.Error."""
    try:
        timeline, written, seconds = answer(handlers, audio, model, provider)
        described = timeline.as_dict()
    except Exception as error:
        raise raised(error) from None
    return {**described, "seconds": round(seconds, 3)}, written
