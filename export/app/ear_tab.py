"""The tab Ear training: a random triad sounds, the visitor names it."""

from __future__ import annotations

import gradio as gr

from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.export.app import answer_page, drawings, games, sounds
from triadbench.export.app.handlers import Handlers

_HINT = "Press “Play a chord”, listen, and choose what you heard."


def draw(handlers: Handlers) -> None:
    """Draw the tab inside the open gr.Blocks. Question and score live in the visitor's session alone."""
    question, score = gr.State(None), gr.State(games.Score())
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            level = gr.Radio(
                [("the type", "type"), ("type and root", "type and root")],
                value="type",
                label="What to name",
                elem_id="ear-level",
            )
            play = gr.Button("Play a chord", variant="primary", elem_id="ear-play")
            sound = gr.Audio(
                interactive=False, autoplay=True, label="The chord", elem_id="ear-sound", buttons=[], type="filepath"
            )
        with gr.Column(scale=3, min_width=300):
            chosen_type = gr.Radio(list(TYPES), label="Type", elem_id="ear-type")
            chosen_root = gr.Radio(
                [(drawings.printed(root), root) for root in ROOTS], label="Root", elem_id="ear-root", visible=False
            )
            check = gr.Button("Check", elem_id="ear-check", interactive=False)
            page = gr.HTML(answer_page.hint(_HINT), elem_id="ear-answer")

    def new_question(before):
        asked = games.ask(before)
        waveform = sounds.triad(asked.root, asked.type, asked.octave, asked.instrument)
        path = _write(handlers, waveform)
        waiting = answer_page.hint("Listen, then choose and press Check.")
        return asked, path, None, None, gr.Button(interactive=True), waiting

    def check_answer(asked, kept, level, kind, root):
        if asked is None:
            return asked, kept, answer_page.hint(_HINT), gr.Button(interactive=False)
        if kind is None or (level != "type" and root is None):
            return asked, kept, answer_page.mistake("choose an answer first"), gr.Button(interactive=True)
        if asked.answered:
            return asked, kept, answer_page.hint("This chord has been answered; play another."), gr.Button()
        right = games.check(asked, level, kind, root)
        kept = kept.counted(right)
        said = drawings.chord_words(root, kind) if level != "type" else kind
        verdict = "Right" if right else f"Not {said}"
        html = (
            f'<section class="tb-answer {"tb-right" if right else "tb-wrong"}" role="status">'
            f'<p class="tb-verdict">{"✓" if right else "✗"} {verdict}: it was '
            f"{drawings.chord_words(asked.root, asked.type)}.</p>{drawings.keyboard(asked.root, asked.type)}"
            f'<p class="tb-score">Your score: {kept.words()}.</p></section>'
        )
        return games.done(asked), kept, html, gr.Button(interactive=False)

    options = {"api_visibility": "private", "concurrency_id": "game", "concurrency_limit": handlers.at_once}
    level.change(lambda level: gr.Radio(visible=level != "type"), level, chosen_root, show_progress="hidden", **options)
    play.click(
        new_question,
        question,
        [question, sound, chosen_type, chosen_root, check, page],
        show_progress="minimal",
        **options,
    )
    check.click(
        check_answer,
        [question, score, level, chosen_type, chosen_root],
        [question, score, page, check],
        show_progress="hidden",
        **options,
    )


def _write(handlers: Handlers, waveform) -> str:
    """A wav whose name says nothing of the chord."""
    from triadbench.core.audio.io import write_wav

    path = handlers.new_folder() / "chord.wav"
    write_wav(path, waveform, sounds.RATE)
    return str(path)
