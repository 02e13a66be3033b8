"""The promise: the GPU run, rehearsed to its last stage, works where only the packages are that it may count on."""

import json
import subprocess

from tests import strict_environment
from triadbench.bench import records
from triadbench.bench.gpu import run as gpu_run
from triadbench.core.files import PACKAGE

_RECORDS = {
    "gpu environment", "gpu roof", "gpu tests", "gpu sanitizer", "mel", "gpu counters", "ladder",
    "experiment batch-size", "gpu final training", "benchmark offline", "gpu command", "gpu stage",
}  # fmt: skip


def test_every_stage_writes_its_result(tmp_path):
    python, out = strict_environment.strict_python(tmp_path), tmp_path / "out"
    command = [str(python), str(PACKAGE / "cli.py"), "study", "--gpu", "--rehearse", "--json", "--out", str(out)]
    variables = strict_environment.bare_variables()
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)
    log = (out / "log.txt").read_text() if (out / "log.txt").exists() else ""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    result = json.loads(done.stdout)
    assert [(row["stage"], row["status"]) for row in result["stages"]] == [(name, "done") for name in gpu_run.STAGES]
    lines, problems = records.load(out / "records.jsonl")
    assert not problems and {line["name"] for line in lines} >= _RECORDS
    assert {line["effort"] for line in lines if "effort" in line} <= {"rehearsal", "smoke"}
    # Nothing in them may be taken for a GPU's figure.
    assert not any(line["environment"].get("gpu") for line in lines)
    assert all(line["environment"].get("rehearsal") for line in lines)
    assert not any('"cuda"' in json.dumps(line["parameters"]) for line in lines if line["samples"])
    for name in ("pytest", "soundfile", "soxr", "psutil"):
        assert any(line.startswith(f"{name}: ") for line in result["missing"]), result["missing"]
    files = list(out.iterdir())
    assert len(files) <= 8 and all(file.stat().st_size < 16_000_000 for file in files)
