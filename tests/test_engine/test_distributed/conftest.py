"""Processes that the tests of this folder share."""

import pytest
from support.forks import Server


@pytest.fixture(scope="session")
def processes():
    """One server for each worker of pytest-xdist."""
    server = Server()
    yield server
    server.close()
