"""Federations of real processes for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.federation import AMPLE, LocalFederation
from tests.support.in_process import commands_in_process

Maker = Callable[..., LocalFederation]
_RUNNING: list[LocalFederation] = []


def build(
    folder: Path,
    *centers: str,
    donors: int = 120,
    hub: dict[str, Any] | None = None,
    private: bool = False,
    tables: float = 0,
) -> LocalFederation:
    """A running federation: a hub, these centers with sample data, and the researcher ada.

    What ada asks for with kind="granted" is exact, and the accounts of persons are ample. `private`: nobody has a
    grant, and the accounts are those of a new center. `tables`: what first-ask tables may cost; without them each
    question is worked out.
    """
    federation = LocalFederation(folder)
    try:
        with commands_in_process():
            federation.make_hub(**(hub or {}))
            for seed, name in enumerate(centers):
                center = federation.join_center(name)
                center.set("release", minimum_donors=1, round_to=1)
                center.set("privacy", **{**({} if private else AMPLE), "tables": tables})
                center.command("ontology", "add", "--demo")
                center.command("sample", "--donors", str(donors), "--seed", str(seed), "--only", "bank", "--import")
            federation.sign_roster()
            federation.start()
            ada = federation.accredit("ada", home=centers[0])
            if not private:
                federation.grant_exact(ada)
    except BaseException:
        federation.stop()
        raise
    _RUNNING.append(federation)
    return federation


@pytest.fixture(scope="session")
def shared_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    """Two centers, lyon and kyoto, for tests that leave everything running as they found it."""
    with build(tmp_path_factory.mktemp("federation"), "lyon", "kyoto") as federation:
        yield federation


@pytest.fixture
def make_federation(tmp_path: Path) -> Iterator[Maker]:
    """Make a federation of one's own, to be harmed."""
    made: list[LocalFederation] = []

    def make(*centers: str, **options: object) -> LocalFederation:
        made.append(build(tmp_path / f"federation-{len(made)}", *centers, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for federation in made:
        federation.stop()
        _RUNNING.remove(federation)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares a federation on one core: each federation is made once."""
    for item in items:
        if "e2e" in item.path.parts:
            shared = "shared_federation" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("shared_federation" if shared else item.path.stem))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of the processes' logs with a failure: they say what the test cannot see."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result
    if report.failed:
        for federation in _RUNNING:
            for log in sorted((federation.folder / "logs").glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-25:]
                report.sections.append((f"{federation.folder.name}/{log.name}", "\n".join(lines)))
