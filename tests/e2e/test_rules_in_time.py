"""What changes while nodes serve: a consent taken back under a running question, a new baseline, a broken own rule."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select

import connexon
from connexon.analyses.count import Count
from connexon.analyses.spec import Kind
from connexon.query.question import Question
from connexon.service import policy_files
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node import settings
from connexon_node.assembly import Opened, opened
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.tables import DonorNumber
from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.question_pipeline import Story, Task
from connexon_node.pipeline.values import Cohort, Computed, Engine, Work
from connexon_node.settings import HubSection
from connexon_node.state import open_state
from deploy.local.federation import Center, LocalFederation
from deploy.local.processes import until
from tests.support.federation import Federation, new_federation
from tests.support.rules import baseline

NUMBERS = DonorNumber.metadata.tables["donor_numbers"]
OWN = """@id("own.no_lots")
@says("Lots are not counted here today.")
forbid (principal, action == Action::"count", resource) when { resource.name == "lots" };
"""


@dataclass
class Interrupted:
    """The real engine; when it has computed, something happens elsewhere before the answer is released."""

    engine: Engine
    meanwhile: list[Callable[[], object]]
    runs: int = 0

    def run(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        computed = self.engine.run(question, cohort, work)
        self.runs += 1
        if self.meanwhile:
            self.meanwhile.pop()()
        return computed

    def training_table(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        return self.engine.training_table(question, cohort, work)


def node_command(folder: Path, *arguments: str) -> None:
    """Run connexon-node as a process of its own."""
    command = [str(Path(sys.executable).parent / "connexon-node"), *arguments, "--dir", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def make_node(folder: Path, federation: Federation) -> Opened:
    """The rooms of kyoto's node with a roster, sixty donors, and exact counts granted to lyon/ada."""
    node = NodeFolder(folder)
    node.make()
    hub = HubSection(
        federation=federation.name,
        center="kyoto",
        link_address="127.0.0.1:7702",
        public_address="127.0.0.1:7701",
        root_fingerprint=federation.root_fingerprint.hex(),
    )
    exact = "\n[release]\nminimum_donors = 1\nround_to = 1\n"
    text = settings.template(hub)
    node.settings_file.write_text(text.replace("\n[release]\n", exact) if "\n[release]\n" in text else text + exact)
    NodeKeys.load_or_make(node)
    database = open_state(node.default_state_url)
    RosterKeeper(database, root_fingerprint=federation.root_fingerprint, federation=federation.name).receive(
        federation.signed_roster()
    )
    database.close()
    node_command(folder, "ontology", "add", "--demo")
    node_command(folder, "sample", "--donors", "60", "--seed", "3", "--only", "bank", "--import")
    node_command(folder, "grant", "give", "lyon/ada", "--any-project", "--because", "agreed", "--yes")
    return opened(node)


def counted_donor(database: Database) -> str:
    """A donor who is counted for any research."""
    ledger = Ledger(database)
    wanted = {number for number, profile in ledger.profiles().items() if str(profile) == "DUO:0000042"}
    snapshot = ledger.snapshot()
    number = next(donor for donor, profile in zip(snapshot.donors, snapshot.profiles, strict=True) if profile in wanted)
    with database.reading() as connection:
        query = select(NUMBERS.c.donor_id).where(NUMBERS.c.number == int(number))
        return str(connection.execute(query).scalar_one())


def test_a_question_that_began_before_a_withdrawal_is_not_released_after_it(tmp_path: Path) -> None:
    federation = new_federation()
    federation.policy_files = baseline()
    node = make_node(tmp_path / "kyoto", federation)
    ada = federation.researcher()

    def answer(engine: Interrupted) -> answer_pb2.Answer:
        delivery = Delivery.arrived(
            (question := ada.question(["kyoto"], Count(kind=Kind.GRANTED), dataset="donors")).query_id,
            ada.sign(question).SerializeToString(),
        )
        story = Story(federation.centers["kyoto"].id, replace(node.steps, engine=engine), roster_serial=lambda: 1)
        sealed = story.answer(Task(delivery, Work(deadline_ms=delivery.expires_at_ms)))
        return answer_pb2.Answer.FromString(sealed.payload)

    before = answer(Interrupted(node.steps.engine, []))
    donor = counted_donor(node.database)
    withdraw = Interrupted(node.steps.engine, [lambda: node_command(tmp_path / "kyoto", "consent", "withdraw", donor)])
    after = answer(withdraw)
    assert withdraw.runs == 2, "what was computed with the withdrawn donor is computed again"
    assert after.count.cells[0].number == before.count.cells[0].number - 1
    node.database.close()


def lots(network: connexon.Network) -> str:
    answer = network.study(purpose="health", centers=["kyoto"], wait=30).dataset("lots").count()
    return answer.center("kyoto").rule or answer.center("kyoto").status.value


def doctors_words(center: Center) -> str:
    (hop,) = [one for one in center.command_json("doctor", accept=(0, 1))["checks"] if one["check"] == "policy"]
    return str(hop["message"])


def test_a_new_baseline_is_applied_without_restart(shared_federation: LocalFederation, tmp_path: Path) -> None:
    network = connexon.connect(shared_federation.researchers["ada"].home)
    changed = tmp_path / "policies"
    shutil.copytree(policy_files.shipped(), changed)
    (changed / "access" / "lots.cedar").write_text(OWN.replace("own.no_lots", "access.no_lots"))
    assert lots(network) == "released"
    update = ("roster", "update", "--root-dir", str(shared_federation.root_folder), "--yes")
    shared_federation.hub_command(*update, "--policies", str(changed))
    try:
        until(lambda: lots(network) == "access.no_lots", "kyoto to apply the changed baseline")
        # A roster that says nothing of policies keeps those in force.
        shared_federation.hub_command(*update)
        assert lots(network) == "access.no_lots"
    finally:
        shared_federation.hub_command(*update, "--shipped-policies")
    until(lambda: lots(network) == "released", "kyoto to apply the baseline as it was")


def test_a_broken_own_rule_is_named_by_doctor_while_the_rules_before_it_stay(
    shared_federation: LocalFederation,
) -> None:
    network = connexon.connect(shared_federation.researchers["ada"].home)
    kyoto = shared_federation.centers["kyoto"]
    kyoto.add_policy("own.cedar", OWN)
    try:
        assert lots(network) == "own.no_lots"
        kyoto.add_policy("own.cedar", OWN.replace("when", "whenever"))
        assert lots(network) == "own.no_lots"
        assert "own.cedar line 1" in doctors_words(kyoto)
        assert "goes on with the rules it had" in doctors_words(kyoto)
    finally:
        (kyoto.folder / "policies" / "own.cedar").unlink()
    assert lots(network) == "released"
