"""The tab Ear training: a random triad sounds, the visitor names it."""

from __future__ import annotations

import dataclasses

import gradio as gr

from triadbench.core.audio.io import write_wav
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.export.app import chord_spelling, example_sounds, html, quiz
from triadbench.export.app.components import PRIVATE, event_limits
from triadbench.export.app.recognition import Recogniser

_HINT = "Press “Play a chord”, listen, and choose what you heard."


def draw(recogniser: Recogniser) -> None:
    """Draw the tab inside the open gr.Blocks. Question and score live in the visitor's session alone."""
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
            page = gr.HTML(html.hint(_HINT), elem_id="ear-answer")

    def new_question(before):
        chord = quiz.ask(before)
        path = recogniser.new_folder() / "chord.wav"  # a name that says nothing of the chord
        write_wav(path, example_sounds.triad(chord.root, chord.type, chord.octave, chord.instrument))
        line = html.hint("Listen, then choose and press Check.")
        return chord, str(path), None, None, gr.Button(interactive=True), line

    def check_answer(chord, total, level, kind, root):
        type_only = level == "type"
        if chord is None:
            return chord, total, html.hint(_HINT), gr.Button(interactive=False)
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
