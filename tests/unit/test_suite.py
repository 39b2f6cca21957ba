"""The test suite itself."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("one worker")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests here")
def test_tests_that_share_a_federation_are_kept_on_one_worker(request: pytest.FixtureRequest) -> None:
    # pytest-xdist groups by the end of a test's id; where it is missing, every worker makes every federation.
    assert request.node.nodeid.endswith("@one worker")
