"""A calibrated network says of sound that it was not trained on how often it is right, and plain triads stay sure."""

import json

import pytest
import soundfile
import torch

from tests.commands import assert_one_line, run, run_json
from tests.core.toys import all_names, chord, save_original, save_template, small_net, write_excerpts, write_set
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.vocabulary import N_CLASSES, NO_CHORD_CLASS
from triadbench.core.training.calibration import fit


def drawn(temperature, prior, n=20_000):
    """Logits of a network whose answers would be right if divided by `temperature` and shifted by `prior`."""
    torch.manual_seed(0)
    chords = 3 * torch.randn(n, N_CLASSES, dtype=torch.float64)
    net = small_net()
    net.temperature, net.prior = torch.tensor(temperature), prior
    rights = torch.multinomial(torch.softmax(net.calibrated(chords), 1), 1)
    return chords, torch.zeros(n, N_CLASSES, dtype=torch.bool).scatter(1, rights, True)


@pytest.mark.parametrize("temperature", [0.8, 1.6])
def test_temperature_and_priors_are_found(temperature):
    prior = torch.zeros(18)
    prior[0], prior[12], prior[-1] = 0.5, -1.0, 2.0
    net = small_net()
    before, after = fit(net, *drawn(temperature, prior))
    assert float(net.temperature) == pytest.approx(temperature, rel=0.1) and after < before
    relative = (net.prior - net.prior[1]).numpy()
    assert relative[[0, 12]] == pytest.approx([0.5, -1.0], abs=0.4) and 1 < relative[17] < 2.1  # N is rare here


def test_few_sounds_change_little_and_right_answers_do_not_make_it_infinitely_sure():
    net, chords = small_net(), torch.zeros(1, N_CLASSES, dtype=torch.float64)
    chords[0, NO_CHORD_CLASS] = 12
    fit(net, chords, chords > 0)
    assert net.prior.abs().max() < 0.1 and 0.9 < float(net.temperature) <= 1.0


def test_calibrate_by_each_kind_of_set(tmp_path):
    unfinished = checkpoints.load(model := save_template(tmp_path / "model.safetensors"))
    unfinished.state = {"0.step": torch.ones(())}
    checkpoints.save(unfinished, model)
    folder = tmp_path / "sounds"
    folder.mkdir()
    for k in range(12):
        soundfile.write(folder / f"{k}.wav", chord(k, 0), 16_000)
    labels = ["Ab:maj", "A:maj", "Bb:maj", "B:maj", "C:maj", "Db:maj", "D:maj", "Eb:maj", "E:maj", "F:maj", "Gb:maj"]
    lines = [{"file": f"{k}.wav", "label": label} for k, label in enumerate([*labels, "X"])]
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for source, n in (
        (folder, 11),
        (write_set(tmp_path / "set", all_names()[:5]), 5),
        (write_excerpts(tmp_path / "excerpts"), 28),
    ):
        out = tmp_path / f"{source.name}.safetensors"
        result, _ = run_json("calibrate", model, source, "--out", out)
        assert (result["set"], result["n"]) == (source.name, n) and result["loss"][1] <= result["loss"][0]
        calibrated = checkpoints.load(out)
        assert calibrated.training["calibration"] == result and not calibrated.state
        assert float(calibrated.model.temperature) == pytest.approx(result["temperature"])
        assert calibrated.model.prior.tolist() == pytest.approx(list(result["prior"].values()))


def test_what_cannot_be_calibrated(tmp_path):
    folder = write_set(tmp_path / "set", all_names()[:2])
    original = save_original(tmp_path / "original.safetensors")
    assert_one_line(run("calibrate", original, folder, "--out", tmp_path / "x.safetensors", code=1), "recipe ours")
    model = save_template(tmp_path / "model.safetensors")
    assert "ends in .safetensors" in run("calibrate", model, folder, "--out", tmp_path / "x.pt", code=2).output
    (tmp_path / "none").mkdir()
    assert_one_line(run("calibrate", model, tmp_path / "none", "--out", tmp_path / "x.safetensors", code=1), "no clip")
