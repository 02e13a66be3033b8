"""What is made once for all tests of exports."""

import pytest

from tests.core.toys import save_pair
from tests.export.exports import sine_clips
from triadbench.core.models import checkpoint
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.formats import exporter
from triadbench.export.formats.verify import Reference


@pytest.fixture(scope="session")
def shipped_checkpoint():
    return checkpoint.load(SHIPPED)


@pytest.fixture(scope="session")
def reference(shipped_checkpoint, tmp_path_factory):
    """Of the shipped model, on 48 clips."""
    return Reference(shipped_checkpoint, sine_clips(), tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def exported_pair(tmp_path_factory):
    """(files of a type and a root network, rows of all that `export` makes of them together)."""
    folder = tmp_path_factory.mktemp("pair")
    files = save_pair(folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter.verify, "verification_clips", lambda *_: sine_clips())
        patch.setattr(exporter.verify, "calibration_clips", lambda *_: sine_clips())
        settings = exporter.FORMATS, exporter.PRECISIONS, folder / "banks", lambda *_: None
        return files, exporter.export_files(files, folder / "out", *settings)
