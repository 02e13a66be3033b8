"""Outputs of one exported file, from a process that has nothing of ours.

    python -I fresh_run.py JOB RESULT       (export/formats/verify.py starts it)

JOB is JSON: {"model", "kind": "onnx" or "torchscript", "batches": [[file.npy, first row, row after the last], ...]}.
int16 rows are divided by 32768. RESULT is an .npz of the outputs, as "BATCH/OUTPUT", and of "about", JSON: names and
shapes of inputs and outputs, the metadata, and the modules that were imported. This file imports nothing of this
project, on purpose: what it measures is what a stranger gets.
"""

import json
import os
import sys
import threading
import time

import numpy as np


def main(job_path: str, result_path: str) -> None:
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    run, about = {"onnx": _onnx, "torchscript": _torchscript}[job["kind"]](job["model"])
    results = {}
    for i, (path, start, stop) in enumerate(job["batches"]):
        rows = np.ascontiguousarray(np.load(path, mmap_mode="r", allow_pickle=False)[start:stop])
        if rows.dtype == np.int16:
            rows = rows.astype(np.float32) / np.float32(32768)
        for j, output in enumerate(run(rows)):
            results[f"{i}/{j}"] = output
    about["modules"] = sorted({name.split(".")[0] for name in sys.modules})
    np.savez(result_path, about=json.dumps(about), **results)


def _end_with(parent: int) -> None:
    """End when the process that asked has been killed, however long the model may compute."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _onnx(model: str):
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as the package's __init__.py
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (model_input,), outputs = session.get_inputs(), session.get_outputs()
    about = {
        "inputs": {model_input.name: model_input.shape},
        "outputs": {output.name: output.shape for output in outputs},
        "types": sorted({value.type for value in (model_input, *outputs)}),
        "metadata": dict(session.get_modelmeta().custom_metadata_map),
    }
    return (lambda rows: session.run(None, {model_input.name: rows})), about


def _torchscript(model: str):
    import warnings

    warnings.simplefilter("ignore")
    import torch

    extra = {"triadbench.json": ""}
    module = torch.jit.load(model, map_location="cpu", _extra_files=extra)
    text = extra["triadbench.json"]
    about = {"metadata": {"triadbench": text.decode() if isinstance(text, bytes) else text}}

    def run(rows):
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(rows))]

    return run, about


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    main(*sys.argv[1:])
