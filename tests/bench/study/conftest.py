"""A quiet machine, whatever else it does: trials of these tests are disturbed only where a test says so."""

import pytest

from tests.bench.study.fakes import FakeMonitor, be_quiet


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    FakeMonitor.others.clear()
    be_quiet(monkeypatch.setattr)
