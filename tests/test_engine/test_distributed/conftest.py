"""Processes that the tests of this folder share."""

import pytest
from processes import Processes


@pytest.fixture(scope="session")
def processes():
    """One server for each worker of pytest-xdist."""
    processes = Processes()
    yield processes
    processes.close()
