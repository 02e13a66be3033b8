"""No time without a green check, and contestants that take turns: every call timed, none of the checks toothless."""

from __future__ import annotations

import numpy as np
import pytest

from triadbench.bench.providers import gate, run


def answers(n: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Outputs of a model that is sure of nothing."""
    logits = np.random.default_rng(seed).standard_normal((n, 12, 4))
    joint = np.exp(logits) / np.exp(logits).sum(axis=(1, 2), keepdims=True)
    return {"type_probabilities": joint.sum(axis=1), "root_probabilities": joint.sum(axis=2), "logits": logits}


def right(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "types": outputs["type_probabilities"],
        "roots": outputs["root_probabilities"],
        "logits": outputs["logits"],
        "labels": outputs["logits"].reshape(len(outputs["logits"]), -1).argmax(axis=1),
        "slack": np.ones(len(outputs["logits"])),
    }


def changed(name: str, index: tuple, value: float) -> dict[str, np.ndarray]:
    outputs = {key: values.copy() for key, values in answers().items()}
    outputs[name][index] += value
    return outputs


def test_the_same_answers_pass():
    found = gate.compare(answers(), right(answers()), "fp32")
    assert found.reason is None and found.worst_difference == 0.0 and found.agreement == 1.0
    assert found.error() == {"reference": "PyTorch", "worst_difference": 0.0, "agreement": 1.0, "limit": 1e-5}


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (changed("type_probabilities", (3, 1), 2e-5), "differs by 2e-05"),
        (changed("root_probabilities", (0, 11), -2e-5), "differs by 2e-05"),
        (changed("logits", (5, 0, 0), 0.01), "a logit differs by"),
        (changed("root_probabilities", (0, 0), np.nan), "not finite"),
        (changed("logits", (0, 0, 0), np.inf), "not finite"),
        ({name: values[:7] for name, values in answers().items()}, "shapes"),
    ],
    ids=["type", "root", "label", "nan", "infinite", "a clip less"],
)
def test_wrong_answers_fail(outputs, told):
    assert told in gate.compare(outputs, right(answers()), "fp32").reason


def test_a_clip_whose_logits_are_large_may_differ_more_and_no_other():
    reference = right(answers())
    reference["slack"][3] = 3.0
    assert gate.compare(changed("type_probabilities", (3, 1), 2e-5), reference, "fp32").reason is None
    assert "differs by 4e-05" in gate.compare(changed("type_probabilities", (3, 1), 4e-5), reference, "fp32").reason
    assert "differs by 2e-05" in gate.compare(changed("type_probabilities", (2, 1), 2e-5), reference, "fp32").reason


def test_a_difference_below_the_limit_passes_and_is_told():
    assert gate.compare(changed("logits", (3, 1, 0), 1e-4), right(answers()), "fp32").reason is None
    found = gate.compare(changed("type_probabilities", (3, 1), 9e-6), right(answers()), "fp32")
    assert found.reason is None and found.worst_difference == pytest.approx(9e-6)


@pytest.mark.parametrize(("wrong", "passes"), [(0, True), (2, True), (3, False)])
def test_other_precisions_are_held_to_their_labels_and_their_difference_is_stated(wrong, passes):
    outputs = answers(20)
    wanted = right(outputs)
    outputs = {name: values.copy() for name, values in outputs.items()}
    outputs["type_probabilities"] += 0.01
    for clip in range(wrong):
        outputs["logits"][clip].flat[(wanted["labels"][clip] + 1) % 48] = 100.0
    found = gate.compare(outputs, wanted, "int8")
    assert (found.reason is None) == passes and found.agreement == 1 - wrong / 20
    assert found.worst_difference == pytest.approx(0.01) and found.limit is None


def test_clips_are_seeded_unlike_and_in_range():
    clips = gate.make_clips(6)
    assert clips.shape == (6, 64_000) and clips.dtype == np.float32 and np.array_equal(clips, gate.make_clips(6))
    assert np.abs(clips).max() <= 0.9 and np.abs(clips).max(axis=1).min() >= 0.1
    assert np.abs(np.corrcoef(clips) - np.eye(6)).max() < 0.999


def test_clips_do_not_leave_the_network_sure_of_everything():
    """Where every probability is 0 or 1, a difference says nothing."""
    from triadbench.core.models.predictor import Predictor

    joint = Predictor.load()(gate.make_clips(24)).joint.reshape(24, -1).max(axis=1)
    assert (joint < 0.99).sum() >= 4


def test_every_call_is_a_sample_and_queries_go_round():
    seen: dict[str, list[int]] = {"a": [], "b": []}
    taken, others = run.take_turns({name: seen[name].append for name in seen}, {"a": 7, "b": 2}, blocks=3, settle_s=0.0)
    # 7 in 3 blocks are 3 each; 2 are 1 each; before every block one call more, which is not timed.
    assert len(taken["a"][0]) == 9 and len(taken["b"][0]) == 3 and others >= 0
    assert seen["a"] == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8] and seen["b"] == [0, 0, 1, 1, 2, 2]
    assert taken["a"][1] is None


def test_blocks_are_shuffled_and_a_long_call_needs_no_rehearsal():
    order: list[str] = []
    calls = {name: lambda _, name=name: order.append(name) for name in "abcd"}
    run.take_turns(calls, dict.fromkeys(calls, 20), blocks=20, settle_s=0.0, long="abcd")
    orders = ["".join(order[i : i + 4]) for i in range(0, 80, 4)]
    assert len(order) == 80 and all(sorted(names) == list("abcd") for names in orders) and len(set(orders)) > 5


def test_time_that_is_over_ends_a_block():
    taken, _ = run.take_turns({"a": lambda _: None}, {"a": 1000}, blocks=2, most_s=0.0, settle_s=0.0)
    assert len(taken["a"][0]) == 2


def test_energy_is_added_up_over_blocks():
    meter = iter(range(0, 1000, 5))
    taken, _ = run.take_turns(
        {"a": lambda _: None}, {"a": 4}, blocks=4, settle_s=0.0, energy=lambda: float(next(meter))
    )
    assert taken["a"][1] == 20.0


def test_energy_says_why_it_is_not_measured(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    read, reason = run.energy_meter("cuda")
    assert read() is None and "pip install nvidia-ml-py" in reason
    assert run.energy_meter("cpu")[0]() is None


@pytest.mark.parametrize(("provider", "difference", "fails"), [("cpu", 5e-5, 1), ("cuda", 5e-5, 0), ("cuda", 5e-4, 1)])
def test_a_gpu_may_differ_by_the_order_of_its_sums(provider, difference, fails):
    benchmark = object.__new__(run._Benchmark)
    benchmark._reference, benchmark.failed, benchmark._dropped = right(answers()), [], set()
    benchmark._leave_out = lambda *arguments, **case: None
    one = run.Contestant("eager, our kernel", "fp32", provider, "chordnet.safetensors")
    check = benchmark._compare("single", one, changed("type_probabilities", (3, 1), difference))
    assert len(benchmark.failed) == fails and (check is None) == bool(fails)
