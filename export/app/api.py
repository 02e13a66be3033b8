"""What programs can call: /name_chord and /timeline, by gradio_client or any other HTTP client."""

import gradio as gr

from triadbench.export.app.components import event_limits, own_files_only
from triadbench.export.app.recognition import Recogniser
from triadbench.export.app.uploads import visitor_message


def draw(recogniser: Recogniser) -> None:
    """Add the endpoints to the open gr.Blocks; their components are not on the page."""

    def name_chord(audio, model, provider):
        """The chord of a clip of at most a minute. model and provider: as in the menus, or empty."""
        try:
            answer = recogniser.name_clip(audio, model, provider)
        except Exception as error:
            raise gr.Error(visitor_message(error), print_exception=False, title="Not answered") from None
        source = {"model": answer.predictor.path.name, "provider": answer.predictor.provider}
        return answer.chord | source | {"read_ms": round(answer.read_ms, 3), "model_ms": round(answer.model_ms, 3)}

    def timeline(audio, model, provider):
        """The chords of a song over time, and files of every format."""
        try:
            answer = recogniser.name_song(audio, model, provider)
            return answer.timeline.as_dict() | {"seconds": round(answer.seconds, 3)}, answer.files
        except Exception as error:
            raise gr.Error(visitor_message(error), print_exception=False, title="Not answered") from None

    with gr.Row(visible=False):
        audio = own_files_only(gr.Audio(type="filepath", label="audio"))
        inputs = [audio, gr.Textbox("", label="model"), gr.Textbox("", label="provider")]
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")
        limits = event_limits(recogniser, "clip")
        gr.Button().click(name_chord, inputs, answer, api_name="name_chord", **limits)
        gr.Button().click(timeline, inputs, [answer, files], api_name="timeline", concurrency_limit=None)
