"""The tab Practice: the app asks for a chord and listens for it."""

from __future__ import annotations

import gradio as gr

from triadbench.export.app import answer_page, drawings, games
from triadbench.export.app.clip_tab import Menus
from triadbench.export.app.handlers import Handlers


def draw(handlers: Handlers, chosen: Menus) -> None:
    """Draw the tab inside the open gr.Blocks. The chord asked for and the score are the visitor's own."""
    question, score = gr.State(None), gr.State(games.Score())
    with gr.Row(elem_classes="tb-columns"):
        with gr.Column(scale=2, min_width=300):
            new = gr.Button("Ask me for a chord", variant="primary", elem_id="practice-new")
            target = gr.HTML(
                answer_page.hint("You will be asked for a chord to play on your instrument."), elem_id="practice-target"
            )
        with gr.Column(scale=3, min_width=300):
            audio = handlers.upload(
                gr.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label="Play it: record, or drop a file",
                    elem_id="practice-audio",
                    editable=False,
                    buttons=[],
                    interactive=True,
                )
            )
            page = gr.HTML("", elem_id="practice-answer")

    def new_question(before):
        asked = games.ask(before)
        html = (
            f'<section class="tb-answer" role="status"><p>Play</p><p class="tb-chord">'
            f"{drawings.chord_words(asked.root, asked.type)}</p>{drawings.keyboard(asked.root, asked.type)}"
            "<p>Any octave and inversion will do.</p></section>"
        )
        return asked, html, None, ""

    def listen(asked, kept, audio, model, provider):
        if not audio:
            return kept, gr.skip()
        if asked is None:
            return kept, answer_page.mistake("press “Ask me for a chord” first")
        try:
            heard, _ = handlers.hear(audio, model, provider)
        except Exception as error:
            return kept, handlers.mistake(error)
        said = heard.answer
        if said["root"] is None:
            return kept, answer_page.mistake("I heard no chord; come nearer to the microphone and play again")
        right = games.heard_right(asked, said["root"], said["type"])
        kept = kept.counted(right)
        verdict = "✓ Right" if right else f"✗ I heard {drawings.chord_words(said['root'], said['type'])}"
        return kept, (
            f'<section class="tb-answer {"tb-right" if right else "tb-wrong"}" role="status"><p class="tb-verdict">'
            f"{verdict} ({100 * said['confidence']:.0f} % sure).</p>{drawings.keyboard(said['root'], said['type'])}"
            f'<p class="tb-score">Your score: {kept.words()}.</p></section>'
        )

    new.click(
        new_question,
        question,
        [question, target, audio, page],
        api_visibility="private",
        concurrency_id="game",
        concurrency_limit=handlers.at_once,
        show_progress="hidden",
    )
    audio.change(
        listen,
        [question, score, audio, chosen.model, chosen.provider],
        [score, page],
        api_visibility="private",
        concurrency_id="clip",
        concurrency_limit=handlers.at_once,
        show_progress="minimal",
    )
