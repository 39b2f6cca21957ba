"""A researcher's first hour, typed as a user types it: from the login file to a real question, without seeing an id."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import connexon
from connexon.errors import NotFound
from deploy.local.federation import LocalFederation
from deploy.local.processes import command
from tests.e2e.conftest import Maker

QUESTION = (
    "cell_line.disease_term under 'parkinson’s disease' and cell_line.type = 'iPSC' and cell_line.grade = 'research' "
    "and has karyotype_findings (significance = 'normal') and status = 'released'"
)


class Typist:
    """Somebody at a terminal with a folder of their own."""

    def __init__(self, home: Path) -> None:
        self._environment = {**os.environ, "CONNEXON_HOME": str(home), "COLUMNS": "120"}

    def type(self, *words: str, accept: tuple[int, ...] = (0,)) -> str:
        """What the terminal shows, in one line."""
        done = subprocess.run(
            [command("connexon"), *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode in accept, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def typist(shared_federation: LocalFederation, tmp_path: Path) -> Typist:
    """Ada's laptop before she logs in: her key, and the file that the steward sent."""
    return _laptop(shared_federation, tmp_path)


def _laptop(federation: LocalFederation, tmp_path: Path) -> Typist:
    ada = federation.researchers["ada"]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "key.pem").write_bytes((ada.home / "key.pem").read_bytes())
    (home / "key.pem").chmod(0o600)
    return Typist(home)


def test_four_commands_lead_from_the_login_to_a_question_in_words(make_federation: Maker, tmp_path: Path) -> None:
    federation = make_federation("lyon", donors=20)
    for seed, center in enumerate(federation.centers.values()):
        center.command("sample", "--donors", "30", "--seed", str(seed), "--features", "2", "--import", "--replace")
    typist = _laptop(federation, tmp_path)
    login = federation.folder / "researchers" / "ada-login.json"
    typist.type("login", str(login))
    found = typist.type("find", "parkinsn")
    assert "cell_lines: disease_term under 'Parkinson disease' · 1 of 1 centers" in found
    assert "MONDO:0005180" in found
    assert "karyotype_findings: significance = 'normal'" in typist.type("find", "normal karyotype")
    asked = typist.type("count", "lots", "--where", QUESTION, "--purpose", "health")
    assert "Understood 'parkinson’s disease' as Parkinson disease (MONDO:0005180)." in asked
    for name in ("lyon",):
        assert f"✓ {name} released" in asked
    (query,) = json.loads(typist.type("queries", "--json"))["queries"][:1]
    told = typist.type("why", query["query_id"][:8])
    assert "What for: health." in told
    assert told.count("how many these are, and how many not, it does not tell") == 1
    assert "MONDO:0005180 is Parkinson disease." in told
    number = next(one["sequence"] for one in federation.centers["lyon"].command_json("audit", "list")["entries"])
    steward = " ".join(federation.centers["lyon"].command("why", query["query_id"]).split())
    for said in ("Who: lyon/ada", "What for: health", "Numbers left.", "Access: permit", "Consent: of ", "noise"):
        assert said in steward
    assert "Record " in federation.centers["lyon"].command("why", str(number))


def test_slips_are_told_once_before_anything_is_sent(shared_federation: LocalFederation, typist: Typist) -> None:
    typist.type("login", str(shared_federation.folder / "researchers" / "ada-login.json"))
    typist.type("catalog")
    for words, meant in (
        (("cell_lines", "--by", "sex"), "'donor.sex'"),
        (("cell_lines", "--where", "type = 'IPSC'"), "'iPSC'"),
        (("cell_lines", "--where", "disease_term = 'Parkinson'"), "'Parkinson disease' (MONDO:0005180)"),
        (("cell_lines", "--where", "donor.sx = 'male'"), "'donor.sex'"),
        (("lots", "--where", "cell_lin.grade = 'research'"), "'cell_line'"),
        (("cellines",), "'cell_lines'"),
    ):
        said = typist.type("count", *words, "--purpose", "health", accept=(1,))
        assert said.count("Did you mean") == 1, said
        assert meant in said
    assert "has not asked" in typist.type("queries") or "catalog" in typist.type("queries")


def test_names_stand_beside_ids_in_tables_documents_and_notebooks(shared_federation: LocalFederation) -> None:
    with connexon.connect(shared_federation.researchers["ada"].home) as network:
        study = network.study(purpose="disease=Parkinson disease", wait=30)
        study.catalog()
        answer = study.dataset("cell_lines").count(by="disease_term", kind="granted")
        assert answer.question.purpose.disease == "MONDO:0005180"
        assert "Parkinson disease (MONDO:0005180)" in str(answer)
        assert "Parkinson disease (MONDO:0005180)" in answer._repr_html_()
        assert {"id": "MONDO:0005180", "label": "Parkinson disease"} in json.loads(json.dumps(answer.to_json()))[
            "terms"
        ]
        assert next(one.id for one in network.find("parkinson's disease") if one.kind == "term") == "MONDO:0005180"
        with pytest.raises(NotFound, match="connexon find"):
            study.dataset("cell_lines").where("disease_term under 'shaking palsy'").count()
