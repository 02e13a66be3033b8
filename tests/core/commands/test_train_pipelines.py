"""`train --pipeline` and `--switch` from the command line: what reaches the training, and one line for a mistake."""

import json

import pytest
from click.testing import CliRunner

from tests.core.toys import all_names, write_set
from triadbench.cli import main
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli-pipelines")
    write_set(folder / "set", all_names())
    pack(open_dataset(folder / "set"), folder / "pack")
    return folder


def train(*arguments, code=0):
    done = CliRunner().invoke(main, ["train", *(str(argument) for argument in arguments)])
    assert done.exit_code == code, done.output
    return done


def test_a_pipeline_and_its_switches_reach_the_training(data, tmp_path):
    common = ["--recipe", "original", "--task", "root", "--epochs", 1, "--json"]
    slow = train(data / "set", tmp_path / "slow", *common, "--pipeline", "original")
    fast = train(data / "pack", tmp_path / "fast", *common, "--switch", "mel=batch", "--switch", "prefetch=on")
    slow, fast = (json.loads(done.stdout)["root"] for done in (slow, fast))
    assert (slow["pipeline"]["mel"], slow["pipeline"]["packed"]) == ("clip", False)
    assert (fast["pipeline"]["mel"], fast["pipeline"]["prefetch"]) == ("batch", True)
    assert slow["curves"][0]["test_loss"] == pytest.approx(fast["curves"][0]["test_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--recipe", "original", "--pipeline", "slow"], 2, "'slow' is not one of 'original', 'fast'"),
        (["--recipe", "original", "--task", "type", "--switch", "mel"], 1, "switch 'mel' must be name=value"),
        (["--pipeline", "fast"], 1, "recipe 'ours' has one pipeline"),
        (
            ["--recipe", "original", "--task", "type", "--pipeline", "original"],
            1,
            "is a pack; switch packed=false opens",
        ),
    ],
)
def test_mistakes(arguments, code, words, data, tmp_path):
    done = train(data / "pack", tmp_path / "out", *arguments, code=code)
    assert words in done.stderr and not (tmp_path / "out").exists()
