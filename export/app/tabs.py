"""The tabs of the page: each function draws one inside the open gr.Blocks, with the handlers of its events."""

import dataclasses

import gradio as gr

from triadbench.core.audio.io import write_wav
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.export.app import chord_spelling, example_sounds, html, quiz
from triadbench.export.app.components import PRIVATE, clip_input, event_limits, examples, own_files_only
from triadbench.export.app.recognition import Recogniser
from triadbench.export.app.uploads import visitor_message
from triadbench.export.predict.bulk import WINDOW_S

_CLIP_HINT = "Record a chord, drop a file, or choose an example: the answer appears here."
_SONG_HINT = "Drop a recording: its chords over time appear here, with files to take home."
_EAR_HINT = "Press “Play a chord”, listen, and choose what you heard."
_PRACTICE_HINT = "You will be asked for a chord to play on your instrument."


def draw_clip(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab Clip: record or drop a sound, and read its chord."""
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            audio = clip_input("Chord: drop a file or record one", "clip-audio", ["upload", "microphone"])
            paths = [example_sounds.example(name) for name in example_sounds.CLIPS]
            examples(paths, audio, list(example_sounds.CLIPS), "clip-examples")
        with gr.Column(scale=3, min_width=300):
            page = gr.HTML(html.hint(_CLIP_HINT), elem_id="clip-answer")

    def name_clip(audio, model, provider):
        if not audio:
            return html.hint(_CLIP_HINT)
        try:
            answer = recogniser.name_clip(audio, model, provider)
        except Exception as error:  # the visitor gets a line, whatever it was
            return html.mistake(visitor_message(error))
        return html.render("clip", answer=answer, window_s=WINDOW_S)

    changes = [audio.change, *(menu.change for menu in menus)]
    options = {"trigger_mode": "always_last", "show_progress": "minimal", **PRIVATE, **event_limits(recogniser, "clip")}
    gr.on(changes, name_clip, [audio, *menus], page, **options)


def draw_song(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab Song: drop a recording of any length, read its chords along with the playback, take them home."""
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
            page = gr.HTML(html.hint(_SONG_HINT), elem_id="song-answer")

    def name_song(song, model, provider, progress=gr.Progress()):  # noqa: B008  (Gradio's way to ask for it)
        no_files = gr.File(value=None, visible=False)
        if not song:
            return html.hint(_SONG_HINT), no_files

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


def draw_ear_training(recogniser: Recogniser) -> None:
    """Draw the tab Ear training: a random triad sounds, the visitor names it.

    Question and score live in the visitor's session alone.
    """
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
            roots = [(chord_spelling.printed(root), root) for root in ROOTS]
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
        answer = kind if type_only else chord_spelling.chord_words(root, kind)
        solution = f"it was {chord_spelling.chord_words(chord.root, chord.type)}"
        words = f"Right: {solution}" if is_right else f"Not {answer}: {solution}"
        page = html.verdict(is_right, words, chord.root, chord.type, total)
        return dataclasses.replace(chord, answered=True), total, page, gr.Button(interactive=False)

    quick = {"show_progress": "hidden", **PRIVATE, **event_limits(recogniser, "game")}
    level.change(lambda level: gr.Radio(visible=level != "type"), level, root_choice, **quick)
    outputs = [question, sound, type_choice, root_choice, check, page]
    play.click(new_question, question, outputs, **quick | {"show_progress": "minimal"})
    answers = [question, score, level, type_choice, root_choice]
    check.click(check_answer, answers, [question, score, page, check], **quick)


def draw_practice(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab Practice: the app asks for a chord and listens for it.

    Question and score live in the visitor's session alone.
    """
    question, score = gr.State(None), gr.State(quiz.Score())
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            new = gr.Button("Ask me for a chord", variant="primary", elem_id="practice-new")
            target = gr.HTML(html.hint(_PRACTICE_HINT), elem_id="practice-target")
        with gr.Column(scale=3, min_width=300):
            audio = clip_input("Play it: record, or drop a file", "practice-audio", ["microphone", "upload"])
            page = gr.HTML("", elem_id="practice-answer")

    def new_question(before):
        chord = quiz.ask(before)
        return chord, html.render("practice_question", question=chord), None, ""

    def listen(chord, total, audio, model, provider):
        if not audio:
            return total, gr.skip()
        if chord is None:
            return total, html.mistake("press “Ask me for a chord” first")
        try:
            answer = recogniser.name_clip(audio, model, provider).chord
        except Exception as error:
            return total, html.mistake(visitor_message(error))
        root, kind = answer["root"], answer["type"]
        if root is None:
            return total, html.mistake("I heard no chord; come nearer to the microphone and play again")
        is_right = chord.is_right(kind, root)
        total = total.counted(is_right)
        verdict = "Right" if is_right else f"I heard {chord_spelling.chord_words(root, kind)}"
        return total, html.verdict(is_right, f"{verdict} ({100 * answer['confidence']:.0f} % sure)", root, kind, total)

    outputs = [question, target, audio, page]
    new.click(new_question, question, outputs, show_progress="hidden", **PRIVATE, **event_limits(recogniser, "game"))
    options = PRIVATE | event_limits(recogniser, "clip")
    audio.change(listen, [question, score, audio, *menus], [score, page], show_progress="minimal", **options)
