"""The switches by name, and the ladder from the original's to the fast ones."""

from dataclasses import asdict

import pytest

from triadbench.core.errors import UserError
from triadbench.core.training.settings import LADDER, ORIGINAL_PIPELINE, Switches, fast_pipeline, pipeline


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_the_ladder_goes_from_one_pipeline_to_the_other_a_switch_at_a_time(device):
    rungs = LADDER(device)
    assert rungs[0][1] == ORIGINAL_PIPELINE and rungs[-1][1] == fast_pipeline(device)
    for (_, before, _), (name, after, sentence) in zip(rungs, rungs[1:], strict=False):
        changed = [key for key, value in asdict(after).items() if asdict(before)[key] != value]
        assert len(changed) == 1, name
        assert sentence.endswith(".") and after.check(device) is after
    assert len({name for name, *_ in rungs}) == len(rungs)


def test_a_pipeline_by_name_with_switches():
    assert pipeline("original", "cpu") == ORIGINAL_PIPELINE == Switches()
    changed = pipeline("fast", "cpu", ["mel=batch", "prefetch=on", "fused_blocks=False"])
    assert changed == fast_pipeline("cpu").with_(mel="batch", prefetch=True, fused_blocks=False)
    assert changed.describe()["mel"] == "batch" and set(changed.describe()) == set(asdict(changed))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("slow", [], "unknown pipeline 'slow'; choose original or fast"),
        ("fast", ["mel"], "switch 'mel' must be name=value, the name one of packed, mel"),
        ("fast", ["speed=1"], "switch 'speed=1' must be name=value"),
        ("fast", ["mel=true"], "switch mel=true: choose clip, batch, cached"),
        ("fast", ["packed=maybe"], "switch packed=maybe: choose true, false"),
        ("fast", ["precision=fp16"], "switch precision=fp16: choose fp32, tf32, bf16"),
        ("fast", ["pool_first=false"], "switch fused_blocks=true needs pool_first=true; set both or neither"),
        ("original", ["cuda_graph=true"], "switch cuda_graph=true needs a GPU"),
    ],
)
def test_what_is_refused(name, changes, message):
    with pytest.raises(UserError, match=message):
        pipeline(name, "cpu", changes)


def test_our_kernels_are_for_the_cpu():
    with pytest.raises(UserError, match="switch fused_blocks=true runs on the CPU and the device is cuda"):
        pipeline("fast", "cuda", ["fused_blocks=true"])
    with pytest.raises(UserError, match="cuda_graph=true needs fused_optimizer=true"):
        pipeline("fast", "cuda", ["fused_optimizer=false"])
