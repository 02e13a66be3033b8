"""The promise: what differs from the checkpoint does not pass, whatever the difference, and nothing of it stays."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.core.toys import sine_bank, write_bank
from tests.export.exports import info_of, network, sealed_bytes, sine_clips, write
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.networks import OriginalNet
from triadbench.core.models.prediction import chords_of_triads
from triadbench.core.render.chords import plan
from triadbench.core.render.note_banks import TRAINING
from triadbench.export.formats import verify
from triadbench.export.formats.verify import Reference, Report, VerificationError, compare, hold
from triadbench.kernels.spec import ORIGINAL


def change(model, name, how):
    for each in model.graph.initializer:
        if each.name == name:
            each.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(each).copy()), name))
            return
    raise AssertionError(f"no weight {name}")


def written(folder, reference, front_end="none", model=None, **changes):
    """A file and its info, with the accuracies that the reference's clips give."""
    changes = {"accuracies": reference.expected_accuracies(), **changes}
    info = write(folder / "model.onnx", model or network(), front_end, **changes)
    return folder / "model.onnx", info


# ---- what is right passes


@pytest.mark.parametrize("front_end", ["each", "batch", "none"])
def test_a_sound_export_passes(front_end, reference, tmp_path):
    report = verify.verify(*written(tmp_path, reference, front_end), reference)
    assert report.agreement == 1.0 and 0 < report.worst_difference < verify.FP32_LIMIT
    assert report.accuracies["n"] == 48 and report.accuracies["type_accuracy"] > 0.9


def test_batches_and_lengths_are_others_than_the_traced_ones(reference):
    batches = {case.rows[1] - case.rows[0] for case in reference.cases}
    assert {1, 5, 33} <= batches and 2 not in {c.rows[1] - c.rows[0] for c in reference.cases if c.name == "clips"}
    lengths = {np.load(reference.folder / case.waveforms, mmap_mode="r").shape[1] for case in reference.cases}
    assert {4096, 21_777, 64_000, 160_000} <= lengths
    frames = {np.load(reference.folder / case.mels, mmap_mode="r").shape[2] for case in reference.cases}
    assert {5, 22, 63, 157} <= frames


# ---- what is wrong does not


def one_weight(model):
    def changed(values):
        values.flat[7] += 0.05
        return values

    change(model, "model.circle.0.weight", changed)


def filter_a_frame_late(model):
    change(model, "model.stem.0.weight", lambda values: np.roll(values, 1, axis=3))


def nan(model):
    def changed(values):
        values.flat[0] = np.nan
        return values

    change(model, "model.around.0.weight", changed)


def other_order_of_roots(model):
    change(model, "val_277", lambda values: np.roll(values, 1))


def logits_of_another_scale(model):
    for node in model.graph.node:
        if node.op_type == "Reshape" and "logits" in node.input:
            node.input[list(node.input).index("logits")] = "half_logits"
            model.graph.initializer.append(numpy_helper.from_array(np.float32(1.1), "factor"))
            place = list(model.graph.node).index(node)
            model.graph.node.insert(place, onnx.helper.make_node("Mul", ["logits", "factor"], ["half_logits"]))
            return


def other_name(model):
    model.graph.output[0].name = "types"
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "type_probabilities":
                node.output[i] = "types"


def closed_batch(model):
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def not_sorted(model):
    model.graph.node.append(model.graph.node[0])
    del model.graph.node[0]


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (one_weight, "differs by"),
        (filter_a_frame_late, "differs by"),
        (nan, "not finite"),
        (other_order_of_roots, "differs by"),
        (logits_of_another_scale, "logits that are not those"),
        (other_name, "outputs"),
        (closed_batch, "inputs"),
        (not_sorted, "checker"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_export_is_refused(breaks, words, reference, tmp_path):
    model = network()
    breaks(model)
    with pytest.raises(VerificationError, match=words):
        verify.verify(*written(tmp_path, reference, model=model), reference)


def test_a_mel_of_another_spec_is_refused(reference, tmp_path):
    path, info = written(tmp_path, reference, "each")
    model = onnx.load(path)
    change(model, "mel/first", lambda values: np.roll(values, 1, axis=2))  # the window a few samples late
    path.write_bytes(sealed_bytes(model))
    with pytest.raises(VerificationError, match="differs by"):
        verify.verify(path, info, reference)


@pytest.mark.parametrize(
    ("change_file", "words"),
    [
        (lambda model: model.SerializeToString(), "damaged or changed"),
        (lambda model: sealed_bytes(model)[:-64] + b"0" * 64, "damaged or changed"),
    ],
    ids=["no seal", "another seal"],
)
def test_a_file_without_its_seal_is_refused(change_file, words, reference, tmp_path):
    path, info = written(tmp_path, reference)
    model = onnx.load(path)
    del model.metadata_props[-1]
    path.write_bytes(change_file(model))
    with pytest.raises(VerificationError, match=words):
        verify.verify(path, info, reference)


def test_metadata_that_are_not_true_are_refused(reference, tmp_path):
    better = {**reference.expected_accuracies(), "root_accuracy": 0.5}
    path, info = written(tmp_path, reference, accuracies=better)
    with pytest.raises(VerificationError, match="measured were"):
        verify.verify(path, info, reference)
    about = {"modules": [], "inputs": {"mel": ["batch", 192, "n_frames"]}, "types": ["tensor(float)"]}
    about |= {"outputs": {name: ["batch"] for name in info.output_names}, "metadata": info.metadata()}
    verify._check_about(about, info)
    with pytest.raises(VerificationError, match="metadata are not those written"):
        verify._check_about(about, dataclasses.replace(info, licence="none"))


def test_what_is_no_model_is_refused(reference, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model at all")
    with pytest.raises(VerificationError, match="checker|does not run"):
        verify.verify(tmp_path / "model.onnx", info_of(network()), reference)


def test_a_worker_that_imports_ours_is_found(reference):
    info = info_of(network())
    about = {"modules": ["numpy", "triadbench"], "metadata": info.metadata()}
    with pytest.raises(VerificationError, match="triadbench was imported"):
        verify._check_about(about, info)


# ---- the limits


def report(reference, difference=0.0, agreement=1.0, lost=0.0):
    accuracies = reference.expected_accuracies()
    return Report(
        difference, difference, agreement, {**accuracies, "type_accuracy": accuracies["type_accuracy"] - lost}
    )


@pytest.mark.parametrize(
    ("precision", "found", "held"),
    [
        ("fp32", {"difference": 1e-5}, True),
        ("fp32", {"difference": 1.1e-5}, False),
        ("fp32", {"difference": float("nan")}, False),
        ("fp32", {"agreement": 0.9999}, False),
        ("fp16", {"difference": 0.1, "agreement": 0.995, "lost": 0.002}, True),
        ("fp16", {"agreement": 0.9949}, False),
        ("int8", {"lost": 0.0021}, False),
        ("int8", {"lost": -0.1}, True),
    ],
)
def test_limits(precision, found, held, reference):
    info = dataclasses.replace(info_of(network()), precision=precision)
    if held:
        hold(report(reference, **found), info, reference)
    else:
        with pytest.raises(VerificationError):
            hold(report(reference, **found), info, reference)


def logits_for(expected):
    """Outputs whose probabilities are those expected."""
    types, roots, joint, chords, bass = expected
    return types, roots, *(np.log(np.maximum(p, 1e-30)).astype(np.float32) for p in (joint, chords)), bass


SEVENTHS_FOR_TRIADS = np.arange(205)
for triad, seventh in ((0, 4), (1, 6), (2, 8)):  # no triad's probability tells
    SEVENTHS_FOR_TRIADS[triad:204:17], SEVENTHS_FOR_TRIADS[seventh:204:17] = (
        np.arange(seventh, 204, 17),
        np.arange(triad, 204, 17),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda chords: np.roll(chords, 17, axis=1), "logits that are not those of the probabilities"),  # other roots
        (lambda chords: chords[:, :204], "outputs"),
        (lambda chords: chords + np.inf, "not finite"),
        (lambda chords: chords[:, SEVENTHS_FOR_TRIADS], None),
    ],
    ids=["other roots", "no N", "infinite", "sevenths"],
)
def test_logits_of_chords_are_compared_too(change, words, reference):
    info = info_of(network())
    outputs = [logits_for(case.expected) for case in reference.cases]
    *before, chords, bass = outputs[0]
    outputs[0] = (*before, change(chords), bass)
    if words is None:
        assert compare(outputs, info, reference).worst_difference > 0.5
        return
    with pytest.raises(VerificationError, match=words):
        compare(outputs, info, reference)


def test_a_bass_is_compared_too(reference):
    outputs = [logits_for(case.expected) for case in reference.cases]
    outputs[0] = (*outputs[0][:-1], np.roll(outputs[0][-1], 1, axis=1))
    assert compare(outputs, info_of(network()), reference).worst_difference > 0.9


def test_noise_beside_a_constant_is_not_compared_but_must_be_finite(reference):
    info = info_of(network())
    outputs, _ = [], None
    for case in reference.cases:
        outputs.append(logits_for(case.expected))
    assert compare(outputs, info, reference).worst_difference < 1e-6
    at = [case.name for case in reference.cases].index("constant")
    uniform = np.full((1, 12, 4), 1 / 48, np.float32)
    chords = chords_of_triads(uniform)
    outputs[at] = logits_for((uniform.sum(1), uniform.sum(2), uniform, chords, np.full((1, 12), 1 / 12, np.float32)))
    assert compare(outputs, info, reference).worst_difference < 1e-6
    outputs[at] = tuple(values * np.nan for values in outputs[at])
    with pytest.raises(VerificationError, match="constant: outputs that are not finite"):
        compare(outputs, info, reference)


def test_the_original_network_is_heard_at_its_one_length(tmp_path):
    checkpoint = Checkpoint(OriginalNet(12).eval(), "original", "root", ORIGINAL)
    some = sine_clips()
    few = verify.LabelledClips("6", some.clips[:6], some.types[:6], some.roots[:6], some.root_defined[:6])
    reference = Reference(checkpoint, few, tmp_path)
    assert set(reference.expected_accuracies()) == {"set", "n", "root_accuracy"}
    assert {np.load(tmp_path / case.waveforms, mmap_mode="r").shape[1] for case in reference.cases} == {64_000}
    # Its logits grow with the sound: nothing is forgiven in silence, something where it is loudest.
    slack = {case.name: case.slack for case in reference.cases}
    assert (slack["silence"] == 1).all() and (slack["loudest"] > 1.5).all()


def test_nothing_is_forgiven_our_network(reference):
    assert all((case.slack == 1).all() for case in reference.cases)


# ---- the clips


def test_verification_clips_are_balanced_and_seeded(monkeypatch, tmp_path):
    folder = write_bank(tmp_path / "bank", sine_bank())
    monkeypatch.setattr(verify, "build_banks", lambda sources, cache, **_: [folder])
    monkeypatch.setattr(verify, "VERIFICATION_STYLES", ("clean",))
    made = verify.verification_clips(tmp_path, 24)
    assert len(made) == 24 and np.array_equal(made.clips, verify.verification_clips(tmp_path, 24).clips)
    assert made.clips.any(axis=1).all() and made.root_defined.all()
    assert verify.N_VERIFICATION >= 1000 and verify.N_CALIBRATION >= 256
    planned = plan(verify.N_VERIFICATION // 3, [sine_bank()], seed=5)
    for label in ("type", "root", "octave", "volume"):
        counts = np.unique([getattr(each.name, label) for each in planned], return_counts=True)[1]
        assert len(set(counts.tolist())) == 1, label


def test_no_instrument_is_both_calibrated_with_and_verified_on():
    heard = {entry.source for entry in TRAINING} | set(verify.CALIBRATION_INSTRUMENTS)
    assert not heard & set(verify.VERIFICATION_INSTRUMENTS)
    assert all(
        source.startswith("synth:") for source in (*verify.CALIBRATION_INSTRUMENTS, *verify.VERIFICATION_INSTRUMENTS)
    )
    seeds = {source.split(":")[1] for source in heard if source.startswith("synth:")}
    assert not seeds & {source.split(":")[1] for source in verify.VERIFICATION_INSTRUMENTS}
