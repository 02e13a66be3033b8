"""What is made once for all tests of exports."""

import pytest

from core import checkpoint
from core.predict import SHIPPED
from export.verify import Reference
from tests.export.exports import sine_clips


@pytest.fixture(scope="session")
def shipped_checkpoint():
    return checkpoint.load(SHIPPED)


@pytest.fixture(scope="session")
def reference(shipped_checkpoint, tmp_path_factory):
    """Of the shipped model, on 48 clips."""
    return Reference(shipped_checkpoint, sine_clips(), tmp_path_factory.mktemp("reference"))
