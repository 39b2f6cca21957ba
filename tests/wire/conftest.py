"""A federation in memory, a small hub on a real port, and Kyoto's node, for tests of what goes over the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from connexon_node.folder import NodeFolder
from tests.support.federation import Federation, new_federation
from tests.support.kyoto import Kyoto
from tests.support.small_hub import SmallHub


@pytest.fixture
def federation() -> Federation:
    return new_federation()


@pytest.fixture
def kyoto(federation: Federation, tmp_path: Path) -> Kyoto:
    return Kyoto(federation, NodeFolder(tmp_path / "kyoto"))


@pytest.fixture
def hub(federation: Federation) -> SmallHub:
    return SmallHub(federation)
