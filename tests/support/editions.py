"""A small center that opens editions: real rules, consent, engine, account and release, without network.

python -m tests.support.editions FOLDER URL    # opens an edition and is killed between its charge and the commit
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from connexon.analyses.count import Count
from connexon.clock import MINUTE, now_ms
from connexon.conditions.where import parse
from connexon.identity import keys
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon.query.purpose import parse_purpose
from connexon.query.question import Question
from connexon.v1 import answer_pb2
from connexon_node.consent.cohort import CedarConsent
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.editions import Edition, Editions
from connexon_node.editions.opening import EditionOpener
from connexon_node.pipeline.values import Computed, Permit, Work
from connexon_node.policy.store import PolicyStore
from connexon_node.release import Decision, ReleaseControl
from connexon_node.settings import EditionSection, PrivacySection, ReleaseSection
from tests.support.center import SmallCenter, ask
from tests.support.federation import new_federation
from tests.support.rules import baseline


class InForce:
    """Rules that are in force."""

    def require_in_force(self) -> None:
        return None


class EditionCenter(SmallCenter):
    """Private numbers are of the edition in force, and there is none before `open`."""

    def __init__(self, folder: Path, url: str = "", *, privacy: PrivacySection | None = None) -> None:
        super().__init__(folder, url=url, editions=Editions)
        self.policies = PolicyStore(folder / "policies")
        self.policies.load(baseline())
        self.privacy = privacy or PrivacySection()
        self.federation = new_federation(centers=("lyon", "kyoto"))
        self.consent = CedarConsent(self.ledger, self.policies, self.ontologies)
        self.asker = self.federation.researcher("lyon", "ada")
        self.release = ReleaseControl(
            ReleaseSection(), DICTIONARY, self.database, privacy=self.privacy, editions=self.editions
        )

    def opener(self, section: EditionSection | None = None) -> EditionOpener:
        return EditionOpener(
            database=self.database,
            editions=self.editions,
            generations=self.generations,
            ledger=self.ledger,
            consent=self.consent,
            engine=self.engine,
            ontologies=self.ontologies,
            dictionary=DICTIONARY,
            rules=InForce(),
            roster=self.federation.roster,
            privacy=self.privacy,
            section=section or EditionSection(),
        )

    def open(self, because: str = "") -> Edition:
        return self.opener().open(by="steward", because=because)

    def question(
        self, dataset: str, text: str = "", *by: str, purpose: str = "health", within: int | None = None
    ) -> Question:
        made = ask(dataset, parse(text) if text else None, Count(by))
        return replace(made, purpose=parse_purpose(purpose), within=within)

    def decide(self, question: Question) -> Decision:
        """What would leave. Raises as consent, engine and release do."""
        return self.release.decide(self._computed(question))

    def answer(self, question: Question) -> answer_pb2.Answer:
        """What leaves, paid and kept."""
        released = self.release.protect(self._computed(question))
        if released.commit is not None:
            with self.database.writing() as connection:
                released.commit(connection)
        return released.answer

    def _computed(self, question: Question) -> Computed:
        query = self.asker.sign(replace(question, centers=(keys.center_id("lyon"),)))
        asked = signed.verify_query(query, self.federation.roster(), NOTHING_REVOKED)
        cohort = self.consent.cohort(Permit(asked, rule="r", policy_version=self.policies.rules.version))
        return self.engine.run(question, cohort, Work(deadline_ms=now_ms() + MINUTE))


class _Killed(Editions):
    """Dies when it has been charged and is about to keep what was drawn."""

    def write_tables(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    center = EditionCenter(Path(sys.argv[1]), sys.argv[2])
    center.editions = _Killed(center.database)
    center.open()
