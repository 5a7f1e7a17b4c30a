"""What the tests of pages share: one small run, evaluated once."""

from __future__ import annotations

import pytest

import wsol
from tests.report.hostile_run import make_run


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> wsol.Results:
    """A run whose class names, file names and dataset try to be markup; don't write into its folder."""
    return make_run(tmp_path_factory.mktemp("runs") / "hostile")
