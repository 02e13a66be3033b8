"""The table of commands. `python cli.py` runs in a bare checkout as well: the folder is then imported as `triadbench`.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.
"""

import importlib.util
import sys
from pathlib import Path


def _import_as_triadbench(folder: Path) -> None:
    """Make `folder` importable as `triadbench` where it is not installed; stop where another copy is."""
    if installed := importlib.util.find_spec("triadbench"):
        locations = [Path(entry).resolve() for entry in installed.submodule_search_locations or ()]
        if folder not in locations:
            sys.exit(
                f"Error: another copy of triadbench is installed in {locations[0]}; run `triadbench`, "
                "or uninstall it (pip uninstall triadbench) to run this checkout"
            )
        return
    spec = importlib.util.spec_from_file_location(
        "triadbench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["triadbench"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["triadbench"])


if __name__ != "triadbench.cli":
    _import_as_triadbench(Path(__file__).resolve().parent)

import click  # noqa: E402

from triadbench.core.commands.console import Group  # noqa: E402
from triadbench.core.constants import VERSION  # noqa: E402

_COMMANDS = {
    "data": ("core.commands.data:data", "Get, make, pack and describe sets of chord clips."),
    "train": ("core.commands.training:train", "Train on a set of clips; checkpoints and curves."),
    "calibrate": ("core.commands.training:calibrate", "Fit a model's confidences to sound it was not trained on."),
    "evaluate": ("core.commands.training:evaluate", "Measure a model on labelled clips."),
    "kernel": ("core.commands.kernel:kernel", "Print the mel kernel that is generated for a spec."),
    "infer": ("export.commands.infer:infer", "Name the chord in files, or the chords of songs over time."),
    "infer-bulk": ("export.commands.infer_bulk:infer_bulk", "Name the chords in very many files, on Ray."),
    "export": ("export.commands.export:export", "Write a model as ONNX and TorchScript files, verified."),
    "app": ("export.commands.app:app", "Serve the app in the browser: clips, songs, training."),
    "profile": ("bench.commands.profile:profile", "Measure this machine and write one interactive page."),
    "benchmark": ("bench.commands.benchmark:benchmark", "Time the model in every format, on every provider."),
    "plan-bulk": ("bench.commands.plan_bulk:plan_bulk", "Measure infer-bulk, and what a million songs would cost."),
    "evaluate-songs": ("bench.commands.evaluate_songs:evaluate_songs", "Score the chords of songs with known chords."),
    "experiment": ("bench.commands.study:experiment", "Measure how long training takes, the original's and ours."),
    "study": ("bench.commands.study:study", "Run the whole study, in order, resumable."),
    "report": ("bench.commands.report:report", "Write everything that was measured into one HTML file."),
}


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(VERSION, prog_name="triadbench", message="%(prog)s %(version)s")
def main() -> None:
    """Name the chord in a piece of audio, and measure what doing so costs.

    \b
    Examples:
      python cli.py infer chord.wav
      python cli.py profile --quick
      python cli.py data info data/audio
    """


for _name, (_target, _help) in _COMMANDS.items():
    main.add_later(_name, f"triadbench.{_target}", _help)

if __name__ == "__main__":
    main()
