"""The promise: the outputs that the fresh process writes are those of the file, batch by batch, with what it says of itself."""

import json
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from tests.export.exports import FOLDER, sine_clips
from triadbench.export.formats import fresh_run
from triadbench.export.predict import ChordPredictor


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_outputs_of_a_job(kind, tmp_path):
    model = FOLDER / ("chordnet.onnx" if kind == "onnx" else "chordnet.torchscript.pt")
    clips = sine_clips()
    np.save(tmp_path / "clips.npy", clips.clips)  # int16
    np.save(tmp_path / "floats.npy", clips.waveforms(0, 2))
    batches = [[str(tmp_path / "clips.npy"), 3, 5], [str(tmp_path / "floats.npy"), 0, 1]]
    job, result = tmp_path / "job.json", tmp_path / "result.npz"
    job.write_text(json.dumps({"model": str(model), "kind": kind, "batches": batches}))
    with warnings.catch_warnings():
        fresh_run.main(str(job), str(result))
    predictor = ChordPredictor()
    with np.load(result) as arrays:
        about = json.loads(str(arrays["about"]))
        for i, (start, stop) in enumerate(((3, 5), (0, 1))):
            assert np.abs(arrays[f"{i}/0"] - predictor(clips.waveforms(start, stop)).types).max() < 1e-5
            assert arrays[f"{i}/2"].shape == (stop - start, 12, 4)
    described = json.loads(about["metadata"]["triadbench"])
    assert described["kind"] == kind and described["task"] == "both" and "numpy" in about["modules"]
    if kind == "onnx":
        assert about["inputs"] == {"waveform": ["batch", "samples"]} and about["types"] == ["tensor(float)"]
        assert list(about["outputs"]) == predictor.info.output_names


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_it_ends_with_the_process_that_began_it(tmp_path):
    os.mkfifo(tmp_path / "job")
    child = [sys.executable, "-I", fresh_run.__file__, str(tmp_path / "job"), str(tmp_path / "result")]
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({child!r})"])
    with open(tmp_path / "job", "wb", buffering=0) as job:  # once the child reads
        parent.kill()
        parent.wait()
        with pytest.raises(BrokenPipeError):
            for _ in range(600):
                job.write(b" ")
                time.sleep(0.1)
