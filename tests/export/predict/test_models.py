"""One line for a TorchScript file that is damaged, another program's, or answers with something else."""

import warnings
import zipfile

import pytest
import torch

from tests.core.toys import chord
from triadbench.core.errors import UserError
from triadbench.core.files import pretrained_path
from triadbench.export.predict.metadata import sealed_zip
from triadbench.export.predict.predictor import ChordPredictor

PRETRAINED = pretrained_path()


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and no more", bytes(1000)], ids=["empty", "cut_zip", "zeros"])
def test_no_torchscript(tmp_path, content):
    path = tmp_path / "bad.torchscript.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad.torchscript.pt: no TorchScript model of triadbench"):
        ChordPredictor(path, "torchscript")
    with pytest.raises(UserError, match="is TorchScript.*use --provider torchscript"):
        ChordPredictor(path)


def test_a_bit_of_the_weights(tmp_path):
    path = tmp_path / "bad.torchscript.pt"
    content = bytearray((PRETRAINED / "chordnet.torchscript.pt").read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad.torchscript.pt: damaged or changed since it was made"):
        ChordPredictor(path, "torchscript")


def _foreign_torchscript(path, answer, metadata=None):
    """A TorchScript file that answers with what the expression gives for waveforms x."""

    class Foreign(torch.nn.Module):
        pass

    module = Foreign()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        scripted = torch.jit.script(module)
        if answer is not None:
            scripted.define(f"def forward(self, x):\n    return {answer}\n")
        torch.jit.save(scripted, str(path), _extra_files=metadata or {})
    path.write_bytes(sealed_zip(path.read_bytes()))


def test_a_foreign_torchscript_file(tmp_path):
    path = tmp_path / "other.torchscript.pt"
    _foreign_torchscript(path, "x * 2")
    with pytest.raises(UserError, match=r"no TorchScript model of triadbench \(its metadata are missing\); make one"):
        ChordPredictor(path, "torchscript")


@pytest.mark.parametrize(
    "answer",
    [
        "x * 2",
        "(x, x)",
        "3",
        "[x, x, x]",
        "(3, 4, 5)",
        "{'logits': x}",
        "None",
        "(x, x, x.to(dtype=15))",
        "(x, x, torch.complex(x, x))",
        "torch.zeros(3).view(7)",
        None,
    ],
)
def test_a_torchscript_file_that_answers_with_something_else(tmp_path, answer):
    with zipfile.ZipFile(PRETRAINED / "chordnet.torchscript.pt") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/extra/triadbench.json"))
        metadata = {"triadbench.json": archive.read(name).decode()}
    path = tmp_path / "m.torchscript.pt"
    _foreign_torchscript(path, answer, metadata)
    predictor = ChordPredictor(path, "torchscript")
    with pytest.raises(UserError, match="m.torchscript.pt") as error:
        predictor(chord(1, 1)[None])
    assert "\n" not in str(error.value)
