"""The promise: the model of the CUDA kernel's cost counts what the machine code and its accesses are, phase by phase, and
divides it by a GPU's rates.
"""

import re

import numpy as np
import pytest

from triadbench.kernels import ORIGINAL, SPECS
from triadbench.kernels.gpu import cost_model, ptx_mel
from triadbench.kernels.gpu import static_analysis as cuda_static

pytestmark = pytest.mark.skipif(cuda_static.why_unavailable() is not None, reason=str(cuda_static.why_unavailable()))

# ns a clip of the kernel of 226931e, counted by hand with another interpreter: issue, L1 + shared, HBM; conflicts of the
# filters. (132 SMs, 1.755 GHz, 3.0 TB/s; log mel.)
BY_HAND = {"ORIGINAL": (138, 172, 96, 2.24), "CHORD": (305, 410, 101, 2.67), "WHISPER": (253, 290, 128, 2.17)}


@pytest.mark.parametrize("name", SPECS)
def test_figures_counted_by_hand(name):
    work = cost_model.count(SPECS[name], log=True)
    found = cost_model.predict(work)
    expected = BY_HAND[name]
    assert [found["issue"], found["l1_shared"], found["hbm"]] == pytest.approx(expected[:3], rel=0.05)
    assert work["phases"][-1]["conflicts"] == pytest.approx(expected[3], rel=0.01)
    assert found["bound"] == "l1_shared" and found["ns"] == found["l1_shared"]


def test_a_prediction_by_hand():
    """Two phases on a GPU of 10 SMs at 2 GHz and 100 GB/s: 80 instructions and 2,560 bytes of L1 a nanosecond."""
    phases = [
        {"phase": "real", "issue_slots": 800.0, "l1_bytes": 2560.0, "shared_bytes": 5120.0},
        {"phase": "last", "issue_slots": 80.0, "l1_bytes": 0.0, "shared_bytes": 2560.0},
    ]
    gpu = cost_model.Gpu("a GPU", 10, 2.0, 100.0)
    found = cost_model.predict({"phases": phases, "hbm_bytes": 2000}, gpu)
    assert (found["issue"], found["l1_shared"], found["hbm"]) == pytest.approx((11.0, 4.0, 20.0))
    assert (found["bound"], found["ns"]) == ("hbm", 20.0)
    assert found["phases"][0] == pytest.approx({"phase": "real", "issue": 10.0, "l1": 1.0, "shared": 2.0})


def test_machine_instructions_follow_the_warps():
    """Of straight code each instruction counts once a warp; of a loop that the assembler unrolled, once a turn."""
    _, trace = ptx_mel.run(np.zeros((1, 64000), np.float32), ORIGINAL, blocks=[5], trace=True)
    text = cuda_static.ptx(ORIGINAL, log=False)
    listing = cuda_static.listing(text, "sm_90")
    slots = cost_model._issue_slots(trace, listing)
    instructions = trace.program.instructions
    last = [k for k, i in enumerate(instructions) if i.opcode[:3] == ("ld", "shared", "v2")]
    assert len(last) == 32 and (slots[last] == 4).all()  # one machine load each, four warps
    fused = [k for k, i in enumerate(instructions) if i.opcode[0] == "fma" and k > last[-1]]
    loads = len(re.findall(r"\bLDS ", listing.split("BAR.SYNC")[-1]))
    assert loads > 4 * 7  # unrolled further than in the PTX
    assert sum(slots[fused]) == pytest.approx(sum(trace.warps[fused]), rel=0.02)


def test_the_lines_do_not_change_the_machine_code():
    found = cuda_static.analyse(ORIGINAL, log=False)
    operations = re.findall(
        r"^\s*/\*[0-9a-f]{4}\*/", cuda_static.listing(cuda_static.ptx(ORIGINAL, log=False), "sm_90"), re.M
    )
    assert len(operations) == found["instructions"]
