"""The tab Practice: the app asks for a chord and listens for it."""

from __future__ import annotations

import gradio as gr

from triadbench.export.app import chord_spelling, html, quiz
from triadbench.export.app.components import PRIVATE, clip_input, event_limits
from triadbench.export.app.recognition import Recogniser
from triadbench.export.app.uploads import visitor_message

_HINT = "You will be asked for a chord to play on your instrument."


def draw(recogniser: Recogniser, menus: list[gr.Dropdown]) -> None:
    """Draw the tab inside the open gr.Blocks. The chord asked for and the score are the visitor's own."""
    question, score = gr.State(None), gr.State(quiz.Score())
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            new = gr.Button("Ask me for a chord", variant="primary", elem_id="practice-new")
            target = gr.HTML(html.hint(_HINT), elem_id="practice-target")
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
        heard = "Right" if is_right else f"I heard {chord_spelling.chord_words(root, kind)}"
        return total, html.verdict(is_right, f"{heard} ({100 * answer['confidence']:.0f} % sure)", root, kind, total)

    outputs = [question, target, audio, page]
    new.click(new_question, question, outputs, show_progress="hidden", **PRIVATE, **event_limits(recogniser, "game"))
    options = PRIVATE | event_limits(recogniser, "clip")
    audio.change(listen, [question, score, audio, *menus], [score, page], show_progress="minimal", **options)
