"""The page in Gradio: title, menus, the tabs with the handlers of their events, and the endpoints for programs."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import gradio as gr

from triadbench.core.audio.io import AUDIO_SUFFIXES, write_wav
from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES
from triadbench.core.models.spelling import chord_words, printed, root_names
from triadbench.export.app import FOLDER, example_sounds, html, quiz
from triadbench.export.app.recognition import Recogniser, visitor_message
from triadbench.export.predict.bulk import WINDOW_S

_TITLE = """# Which chord is this?
Chords by ear, by model, and by you. All of it stays on the computer that runs this page."""
# Gradio applies `CSS` to its page alone: rules for what is around that page, and for the dark theme, are in `HEAD`.
CSS, _FRAME, _PLAYER = ((FOLDER / name).read_text("utf-8") for name in ("style.css", "frame.css", "player.js"))
HEAD = f'<meta name="referrer" content="no-referrer"><style>{_FRAME}</style><script>{_PLAYER}</script>'
_CLIP_HINT = "Record a chord, drop a file, or choose an example: the answer appears here."
_SONG_HINT = "Drop a recording: its chords over time appear here, with files to take home."
_EAR_HINT = "Press “Play a chord”, listen, and choose what you heard."
_PRACTICE_HINT = "You will be asked for a chord to play on your instrument."
_SOUNDS = ["audio", "video", *AUDIO_SUFFIXES]
"""What Gradio takes for a song; it does not count all suffixes among sound and films."""
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Options of an event of the page itself, which is no part of the API."""


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the system's fonts: its own would be fetched, or be missing offline."""
    sans, mono = ("system-ui", "Segoe UI", "Roboto", "sans-serif"), ("ui-monospace", "Consolas", "monospace")
    return gr.themes.Base(primary_hue="indigo", neutral_hue="slate", text_size="lg", font=sans, font_mono=mono)


def build(recogniser: Recogniser) -> gr.Blocks:
    """The app, not yet served."""
    with gr.Blocks(title="triadbench", analytics_enabled=False) as blocks:
        gr.Markdown(_TITLE)
        with gr.Accordion("Model, provider and chords", open=False), gr.Row():
            entries = {
                "Model": recogniser.predictors.models,
                "Provider (what computes)": recogniser.predictors.providers,
                "Chords": recogniser.predictors.chords,
            }
            menus = [
                gr.Dropdown(names, value=names[0], label=label, elem_id=label.split()[0].lower(), filterable=False)
                for label, names in entries.items()
            ]
        with gr.Tab("Clip", id="clip"):
            _draw_clip(recogniser, menus)
        with gr.Tab("Song", id="song"):
            _draw_song(recogniser, menus)
        with gr.Tab("Ear training", id="ear"):
            _draw_ear_training(recogniser)
        with gr.Tab("Practice", id="practice"):
            _draw_practice(recogniser, menus)
        _draw_api(recogniser)
    return blocks


def _own_files_only(component):
    """A component that takes files of visitors, and no addresses: the server fetches nothing for anyone."""
    move = component.async_move_resource_to_block_cache

    async def move_file(path):
        if "://" in str(path or ""):
            raise gr.Error("this server fetches nothing from elsewhere; send the file itself", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_file
    return component


def _clip_input(label: str, elem_id: str, sources: list[Literal["upload", "microphone"]]) -> gr.Audio:
    """Takes a clip: a file, or a recording."""
    options: dict[str, Any] = {"type": "filepath", "interactive": True, "editable": False, "buttons": []}
    return _own_files_only(gr.Audio(sources=sources, label=label, elem_id=elem_id, **options))


def _examples(names: Iterable[str], component: gr.components.Component, label: str, elem_id: str) -> None:
    """Buttons that put a shipped example into a component."""
    options = {"label": label, "example_labels": list(names), "cache_examples": False, **_PRIVATE}
    gr.Examples([[str(example_sounds.example(name))] for name in names], [component], elem_id=elem_id, **options)


def _event_limits(recogniser: Recogniser, queue: str) -> dict[str, Any]:
    """Options of an event: how many are answered at the same time from each queue."""
    return {"concurrency_id": queue, "concurrency_limit": recogniser.at_once}


def _draw_clip(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab Clip: record or drop a sound, and read its chord."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            audio = _clip_input("Chord: drop a file or record one", "clip-audio", ["upload", "microphone"])
            _examples(example_sounds.CLIPS, audio, "Examples", "clip-examples")
        with gr.Column(scale=3, min_width=300):
            page = gr.HTML(html.hint(_CLIP_HINT), elem_id="clip-answer")

    def name_clip(audio, *menus):
        if not audio:
            return html.hint(_CLIP_HINT)
        try:
            answer = recogniser.name_clip(audio, *menus)
        except Exception as error:  # the visitor gets a line, whatever it was
            return html.mistake(visitor_message(error))
        return html.render("clip", answer=answer, window_s=WINDOW_S)

    changes = [audio.change, *(menu.change for menu in menus)]
    options = _PRIVATE | _event_limits(recogniser, "clip") | {"show_progress": "minimal"}
    gr.on(changes, name_clip, [audio, *menus], page, trigger_mode="always_last", **options)


def _draw_song(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab Song: drop a recording of any length, read its chords along with the playback, take them home."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            song = gr.File(file_types=_SOUNDS, label="Song: drop a file", elem_id="song-file", height=140)
            _own_files_only(song)
            _examples([example_sounds.SONG], song, "Example", "song-examples")
            downloads = gr.File(
                label="Downloads", file_count="multiple", interactive=False, elem_id="song-downloads", visible=False
            )
        with gr.Column(scale=5, min_width=300):
            page = gr.HTML(html.hint(_SONG_HINT), elem_id="song-answer")

    def name_song(song, model, provider, chords, progress=gr.Progress()):  # noqa: B008  (Gradio's way to ask for it)
        no_files = gr.File(value=None, visible=False)
        if not song:
            return html.hint(_SONG_HINT), no_files

        def report(done, total):
            progress((done, total) if total else None, desc="Listening")

        def report_place(place):
            progress(0, desc="One song before yours" if place == 1 else f"{place} songs before yours")

        try:
            answer = recogniser.name_song(song, model, provider, report, report_place, chords)
        except Exception as error:
            return html.mistake(visitor_message(error)), no_files
        section = html.render("song", answer=answer, audio=song)
        return section, gr.File(value=answer.files, visible=True)

    options = _PRIVATE | {"concurrency_limit": None, "trigger_mode": "always_last", "show_progress_on": page}
    song.change(name_song, [song, *menus], [page, downloads], **options)


def _draw_ear_training(recogniser: Recogniser) -> None:
    """Draw the tab Ear training: a random triad sounds, the visitor names it. Its state is the session's."""
    question, score = gr.State(None), gr.State(quiz.Score())
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            levels = [("the type", "type"), ("type and root", "type and root")]
            level = gr.Radio(levels, value="type", label="What to name", elem_id="ear-level")
            play = gr.Button("Play a chord", variant="primary", elem_id="ear-play")
            sound = gr.Audio(
                interactive=False, autoplay=True, label="The chord", elem_id="ear-sound", buttons=[], type="filepath"
            )
        with gr.Column(scale=3, min_width=300):
            type_choice = gr.Radio(list(TYPES), label="Type", elem_id="ear-type")
            roots = [(" / ".join(map(printed, root_names(i))), root) for i, root in enumerate(ROOTS)]
            root_choice = gr.Radio(roots, label="Root", elem_id="ear-root", visible=False)
            check = gr.Button("Check", elem_id="ear-check", interactive=False)
            page = gr.HTML(html.hint(_EAR_HINT), elem_id="ear-answer")

    def new_question(before):
        chord = quiz.ask(before)
        path = recogniser.new_folder() / "chord.wav"  # a name that says nothing of the chord
        write_wav(path, example_sounds.triad(chord.root, chord.type, chord.octave, chord.instrument))
        line = html.hint("Listen, then choose and press Check.")
        return chord, str(path), None, None, gr.Button(interactive=True), line

    def check_answer(chord, total, level, kind, root):
        type_only = level == "type"
        if chord is None:
            return chord, total, html.hint(_EAR_HINT), gr.Button(interactive=False)
        if kind is None or (root is None and not type_only):
            return chord, total, html.mistake("choose an answer first"), gr.Button(interactive=True)
        if chord.answered:
            return chord, total, html.hint("This chord has been answered; play another."), gr.Button()
        is_right = chord.is_right(kind, root, type_only)
        total = total.counted(is_right)
        answer = kind if type_only else chord_words(quiz.named(root, kind))
        solution = f"it was {chord_words(chord.chord)}"
        words = f"Right: {solution}" if is_right else f"Not {answer}: {solution}"
        page = html.verdict(is_right, words, chord.chord, total)
        return dataclasses.replace(chord, answered=True), total, page, gr.Button(interactive=False)

    quick = {"show_progress": "hidden", **_PRIVATE, **_event_limits(recogniser, "game")}
    level.change(lambda level: gr.Radio(visible=level != "type"), level, root_choice, **quick)
    outputs = [question, sound, type_choice, root_choice, check, page]
    play.click(new_question, question, outputs, **quick | {"show_progress": "minimal"})
    answers = [question, score, level, type_choice, root_choice]
    check.click(check_answer, answers, [question, score, page, check], **quick)


def _draw_practice(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab Practice: the app asks for a chord and listens for it. Its state is the session's."""
    question, score = gr.State(None), gr.State(quiz.Score())
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            new = gr.Button("Ask me for a chord", variant="primary", elem_id="practice-new")
            target = gr.HTML(html.hint(_PRACTICE_HINT), elem_id="practice-target")
        with gr.Column(scale=3, min_width=300):
            audio = _clip_input("Play it: record, or drop a file", "practice-audio", ["microphone", "upload"])
            page = gr.HTML("", elem_id="practice-answer")

    def new_question(before):
        chord = quiz.ask(before)
        return chord, html.render("practice_question", question=chord), None, ""

    def listen(chord, total, audio, *menus):
        if not audio:
            return total, gr.skip()
        if chord is None:
            return total, html.mistake("press “Ask me for a chord” first")
        try:
            answer = recogniser.name_clip(audio, *menus).chord
        except Exception as error:
            return total, html.mistake(visitor_message(error))
        if answer["name"] == NO_CHORD:
            return total, html.mistake("I heard no chord; come nearer to the microphone and play again")
        is_right = chord.is_right(answer["type"], answer["root"])
        total = total.counted(is_right)
        verdict = "Right" if is_right else f"I heard {chord_words(answer['name'])}"
        words = f"{verdict} ({100 * answer['confidence']:.0f} % sure)"
        return total, html.verdict(is_right, words, answer["name"], total)

    outputs = [question, target, audio, page]
    new.click(new_question, question, outputs, show_progress="hidden", **_PRIVATE, **_event_limits(recogniser, "game"))
    options = _PRIVATE | _event_limits(recogniser, "clip")
    audio.change(listen, [question, score, audio, *menus], [score, page], show_progress="minimal", **options)


def _draw_api(recogniser: Recogniser) -> None:
    """Add the endpoints to the open gr.Blocks; their components are not on the page."""

    def name_chord(audio, model, provider):
        """The chord of a clip of at most a minute. model and provider: as in the menus, or empty."""
        try:
            answer = recogniser.name_clip(audio, model, provider)
        except Exception as error:
            raise gr.Error(visitor_message(error), print_exception=False, title="Not answered") from None
        source = {"model": answer.predictor.model_name, "provider": answer.predictor.provider}
        return answer.chord | source | {"read_ms": round(answer.read_ms, 3), "model_ms": round(answer.model_ms, 3)}

    def timeline(audio, model, provider):
        """The chords of a song over time, and files of every format."""
        try:
            answer = recogniser.name_song(audio, model, provider)
            note = {"note": "; ".join(answer.notes)} if answer.notes else {}
            return answer.timeline.as_dict() | {"seconds": round(answer.seconds, 3)} | note, answer.files
        except Exception as error:
            raise gr.Error(visitor_message(error), print_exception=False, title="Not answered") from None

    with gr.Row(visible=False):
        audio = _own_files_only(gr.Audio(type="filepath", label="audio"))
        inputs = [audio, gr.Textbox("", label="model"), gr.Textbox("", label="provider")]
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")
        limits = _event_limits(recogniser, "clip")
        gr.Button().click(name_chord, inputs, answer, api_name="name_chord", **limits)
        gr.Button().click(timeline, inputs, [answer, files], api_name="timeline", concurrency_limit=None)
