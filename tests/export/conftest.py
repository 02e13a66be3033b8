"""What is made once for all tests of exports."""

import pytest

from tests.export.exports import sine_clips
from triadbench.core.models import checkpoint
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.formats.verify import Reference


@pytest.fixture(scope="session")
def shipped_checkpoint():
    return checkpoint.load(SHIPPED)


@pytest.fixture(scope="session")
def reference(shipped_checkpoint, tmp_path_factory):
    """Of the shipped model, on 48 clips."""
    return Reference(shipped_checkpoint, sine_clips(), tmp_path_factory.mktemp("reference"))
