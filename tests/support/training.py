"""A center whose node runs as a process, with rows that a model can be trained on, and a hub played by the test."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from typer.testing import CliRunner

from connexon.analyses.train import Train
from connexon.clock import DAY, now_ms
from connexon.identity.credential import Grant
from connexon.identity.keys import SpiffeId
from connexon.learning import models, records
from connexon.learning.preprocessing import Preprocessing, Summary, fit
from connexon.learning.recipe import FieldFeature, Linear, LocalWork, Recipe, Target, TrainingPrivacy
from connexon.link import parcel_files
from connexon.link.parcel_files import ParcelFile, TaskId
from connexon.query.question import Question
from connexon.v1 import answer_pb2, link_pb2, query_pb2, task_pb2
from connexon_node.cli import app
from connexon_node.editions import Edition, Editions
from connexon_node.folder import NodeFolder
from connexon_node.membership import keys
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.release.grants import ANY, TRAINING, Grants
from connexon_node.release.grants import Grant as Granted
from connexon_node.settings import HubSection, template
from connexon_node.state import open_state
from tests.support.center import SmallCenter
from tests.support.federation import Asker, Center, Federation, new_federation
from tests.support.rules import baseline
from tests.support.small_hub import HubSession, SmallHub, until

COMMAND = str(Path(sys.executable).with_name("connexon-node"))
DONORS = 40
TRAINER = Grant(
    "AcceptedTermsAndPolicies", "model-training", asserted_ms=now_ms() - DAY, expires_ms=now_ms() + 30 * DAY
)
RECIPE = Recipe(
    name="passages",
    target=Target("passage_no"),
    features=(FieldFeature("cells_per_vial_1e6"), FieldFeature("vials_made"), FieldFeature("donor.sex")),
    model=Linear(LocalWork(0.1)),
    rounds=3,
    privacy=None,
    seed=11,
)
GRANTED = ("ada",)
"""Who may train here with exact updates."""
PRIVATE = replace(
    RECIPE,
    target=Target("passage_no", range=(8.0, 44.0)),
    features=(
        FieldFeature("cells_per_vial_1e6", (1.0, 5.0)),
        FieldFeature("vials_made", (10.0, 60.0)),
        FieldFeature("donor.sex"),
    ),
    privacy=TrainingPrivacy(epsilon=1.5, delta=1e-6, clip=9.0),
)
"""The same with noise."""
SETTINGS = {"RELEASE__MINIMUM_DONORS": "5", "RELEASE__ROUND_TO": "5", "TRAINING__MINIMUM_DONORS": "10"}
Story = Callable[[HubSession], Awaitable[None]]
"""What a test plays to a node that is attached."""


def lots(donors: int = DONORS) -> list[dict[str, object]]:
    """Two lots of each donor's line; the passage follows from the other numbers, nearly."""
    random = numpy.random.default_rng(3)
    rows: list[dict[str, object]] = []
    for number in range(2 * donors):
        cells, vials = round(float(random.uniform(1, 5)), 2), int(random.integers(10, 60))
        male = (number // 2) % 2
        rows.append(
            {
                "id": f"B{number}",
                "cell_line_id": f"L{number // 2}",
                "lot_no": f"N{number}",
                "bank_level": "seed" if cells < 3 else "MCB",
                "status": "released",
                "passage_no": round(20 + 3 * cells - vials / 10 + 2 * male + random.normal(0, 0.5)),
                "cells_per_vial_1e6": cells,
                "vials_made": vials,
            }
        )
    return rows


def load(center: SmallCenter, donors: int = DONORS) -> None:
    """Donors with consent, their lines and lots."""
    everybody = range(donors)
    center.load_rows("donors", [{"id": f"D{n}", "sex": ["female", "male"][n % 2]} for n in everybody])
    consent = {"form_version": "1", "obtained_on": "2024-01-01", "status": "active", "scope": "research"}
    center.load_rows(
        "consents",
        [{"id": f"C{n}", "donor_id": f"D{n}", "duo_permission": "DUO:0000042", **consent} for n in everybody],
    )
    center.load_rows(
        "cell_lines",
        [
            {"id": f"L{n}", "donor_id": f"D{n}", "hpscreg_name": f"TESTi{n:03d}-A", "type": "iPSC", "grade": "research"}
            for n in everybody
        ],
    )
    center.load_rows("lots", lots(donors))


@dataclass
class TrainingNode:
    """Kyoto: its folder, and its process while it runs."""

    root: Path
    federation: Federation = field(default_factory=new_federation)
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.federation.policy_files = baseline()
        self.folder = NodeFolder(self.root)
        self.folder.make()
        held = NodeKeys.load_or_make(self.folder)
        former = self.federation.centers["kyoto"]
        member = replace(former.member, answering_keys=(held.answering.public,))
        self.center = self.federation.centers["kyoto"] = Center(member, former.accrediting, held.answering)
        keys.save_authority(self.folder, self.federation.authority.der)
        identity = SpiffeId("alliance", self.center.id)
        issued = self.federation.authority.issue_link(held.link.request(), identity, life=datetime.timedelta(days=1))
        LinkCertificate(issued).save(self.folder)
        center = SmallCenter(self.folder.root)
        load(center)
        center.close()
        database = open_state(self.folder.default_state_url)
        keeper = RosterKeeper(database, root_fingerprint=self.federation.root_fingerprint, federation="alliance")
        keeper.receive(self.federation.signed_roster())
        with database.writing() as connection:
            generations = dict.fromkeys(("donors", "consents", "cell_lines", "lots"), 1)
            Editions(database).write(connection, Edition(1, now_ms(), "steward", "", generations))
        database.close()
        for subject in GRANTED:
            self.grant(subject)

    def grant(self, subject: str, project: str = ANY) -> Granted:
        """Let a researcher train with exact updates."""
        database = open_state(self.folder.default_state_url)
        try:
            return Grants(database).give(
                researcher=f"lyon/{subject}",
                project=project,
                datasets=frozenset({ANY}),
                because="a test",
                by="steward",
                ends_at_ms=now_ms() + 30 * DAY,
                what=frozenset({TRAINING}),
            )
        finally:
            database.close()

    def researcher(self, subject: str = "ada") -> Asker:
        """Accredited, and accepted the training terms."""
        return self.federation.researcher(subject=subject, grants=(TRAINER,))

    @contextmanager
    def serving(self, hub: SmallHub) -> Iterator[TrainingNode]:
        """Its process, for the length of the block."""
        self.start(hub)
        try:
            yield self
        finally:
            self.stop()

    def configure(self, address: str = "127.0.0.1:1") -> None:
        """Write its settings, with the hub at this address."""
        section = HubSection(
            federation="alliance",
            center="kyoto",
            link_address=address,
            public_address=address,
            root_fingerprint=self.federation.root_fingerprint.hex(),
        )
        self.folder.settings_file.write_text(template(section))

    def start(self, hub: SmallHub) -> None:
        """Begin to serve."""
        self.configure(hub.address)
        with (self.root / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--dir", str(self.root)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **{f"CONNEXON_NODE__{name}": value for name, value in self.settings.items()}},
            )

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """In order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def run(self, *arguments: str) -> str:
        """A command of the steward, in this process."""
        done = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200"}).invoke(app, [*arguments, "--dir", str(self.root)])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    @property
    def log(self) -> str:
        """What the process wrote."""
        return (self.root / "serve.log").read_text()


def played(node: TrainingNode, hub: SmallHub, story: Story) -> None:
    """Run the story with the node attached."""

    async def whole() -> None:
        async with hub.running():
            with node.serving(hub):
                await story(await hub.session())

    asyncio.run(whole())


@dataclass
class Run:
    """A run as the hub sees it: makes tasks, and reads replies."""

    node: TrainingNode
    session: HubSession
    query: query_pb2.SignedQuery
    recipe: Recipe
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="hub-")))
    last: int = 0

    @property
    def id(self) -> str:
        """Of the run's query."""
        return query_pb2.Query.FromString(self.query.payload).query_id

    @classmethod
    async def enrolled(
        cls,
        node: TrainingNode,
        session: HubSession,
        recipe: Recipe = RECIPE,
        question: Question | None = None,
        *,
        subject: str = "ada",
    ) -> Run:
        """Ask, and wait until the node takes part."""
        run = cls.asking(node, session, recipe, question, subject=subject)
        answer = await run.enrolment()
        assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED, answer.reason
        return run

    @classmethod
    def asking(
        cls,
        node: TrainingNode,
        session: HubSession,
        recipe: Recipe = RECIPE,
        question: Question | None = None,
        *,
        subject: str = "ada",
    ) -> Run:
        """Ask."""
        ada = node.researcher(subject)
        query = ada.sign(question or ada.question(["kyoto"], Train(recipe), dataset="lots"))
        session.deliver(query)
        return cls(node, session, query, recipe)

    async def enrolment(self) -> answer_pb2.Answer:
        """The node's answer to the run's query."""
        body = await self.session.answer(self.id)
        self.session.confirm(self.id)
        return answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(body).payload)

    def send(
        self,
        action: str,
        content: RecordDict,
        round_number: int,
        *,
        number: int | None = None,
        change: dict[str, object] | None = None,
        seconds: float = 60.0,
    ) -> TaskId:
        """Send a task; `change` falsifies its head."""
        self.last = self.last + 1 if number is None else number
        task = TaskId(self.id, self.last)
        parcel_files.write(self.folder / "records", b"", records.to_pieces(content))
        found = parcel_files.read(self.folder / "records")
        head = task_pb2.Task(
            task_id=str(task),
            action=action,
            round=round_number,
            deadline_ms=now_ms() + int(seconds * 1000),
            records_sha256=found.records_sha256(),
            records_size=found.records_size,
        )
        for name, value in (change or {}).items():
            setattr(head, name, value)
        path = self.folder / str(task)
        parcel_files.write(path, head.SerializeToString(), found.records())
        self.deliver(task)
        return task

    def deliver(self, task: TaskId) -> None:
        """Send a task's parcel, again."""
        for piece in parcel_files.pieces(str(task), link_pb2.PARCEL_KIND_TASK, self.folder / str(task)):
            self.session.send(link_pb2.AttachResponse(chunk=piece))

    def replies(self, task: TaskId) -> list[ParcelFile]:
        """What came back, as often as it came."""
        return [parcel_files.read(one.path) for one in self.session.replies if one.id == task]

    async def reply(self, task: TaskId) -> tuple[answer_pb2.Answer, RecordDict | None]:
        """The first reply, proved: signed by the center, for this run and task, with these records."""
        await until(lambda: self.replies(task))
        return self.read(task, self.replies(task)[0])

    def read(self, task: TaskId, parcel: ParcelFile) -> tuple[answer_pb2.Answer, RecordDict | None]:
        from connexon.query import signed

        answer = signed.verify_answer(
            answer_pb2.SignedAnswer.FromString(parcel.head),
            self.node.federation.roster(),
            center=self.node.center.id,
            query_payload=self.query.payload,
        )
        assert answer.task.task_id == str(task)
        assert answer.task.task_sha256 == hashlib.sha256((self.folder / str(task)).read_bytes()).digest()
        if answer.status != answer_pb2.ANSWER_STATUS_RELEASED:
            assert parcel.records_size == 0
            return answer, None
        assert (answer.task.records_size, answer.task.records_sha256) == (parcel.records_size, parcel.records_sha256())
        return answer, records.read(parcel)

    def confirm(self, task: TaskId) -> None:
        """Say that a reply is stored."""
        stored = link_pb2.Stored(query_id=str(task), kind=link_pb2.PARCEL_KIND_REPLY)
        self.session.send(link_pb2.AttachResponse(stored=stored))

    async def preprocessing(self) -> Preprocessing:
        """Fit from the node's summary."""
        task = self.send("query.summary", RecordDict({"config": ConfigRecord({})}), 0)
        answer, content = await self.reply(task)
        assert content is not None, answer.reason
        return fit(self.recipe, [Summary.from_records(content)])


def content_of(
    arrays: Mapping[str, NDArray[Any]], fitted: Preprocessing, round_number: int, **config: float
) -> RecordDict:
    """What a strategy sends."""
    return RecordDict(
        {
            "arrays": ArrayRecord({name: Array(values) for name, values in arrays.items()}),
            "config": ConfigRecord({"server-round": round_number, "preprocessing": fitted.to_json(), **config}),
        }
    )


def initial(run: Run, fitted: Preprocessing) -> dict[str, NDArray[numpy.float64]]:
    """The model before its first round."""
    return models.initial_arrays(run.recipe, fitted)
