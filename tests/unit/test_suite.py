"""The test suite itself."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("one worker")
def test_tests_that_share_a_federation_are_kept_on_one_worker(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("Tests are not spread over workers by group here.")
    # pytest-xdist groups by the end of a test's id; where it is missing, every worker makes every federation.
    assert request.node.nodeid.endswith("@one worker")
