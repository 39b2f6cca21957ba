"""An edition's life over real processes: imported, opened, asked for free; imports change nothing, withdrawals do."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import connexon
from tests.e2e.conftest import Maker

WAIT = 40.0
OPENED = 400
LATER = 1_200


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _donors(folder: Path, many: int) -> Path:
    rows = [{"id": f"E{one}", "sex": ("female", "male")[one % 2], "country_iso2": "FR"} for one in range(many)]
    return _write(folder / "donors.csv", rows)


def _consents(folder: Path, many: int, *, withdrawn: int = 0) -> Path:
    rows: list[dict[str, object]] = [
        {
            "id": f"F{one}",
            "donor_id": f"E{one}",
            "form_version": "1",
            "obtained_on": "2026-01-10",
            "status": "withdrawn" if one < withdrawn else "active",
            "withdrawn_on": "2026-02-01" if one < withdrawn else "",
            "scope": "research",
            "duo_permission": "DUO:0000042",
        }
        for one in range(many)
    ]
    return _write(folder / "consents.csv", rows)


def test_an_edition_is_imported_opened_asked_and_followed_by_the_next(make_federation: Maker, tmp_path: Path) -> None:
    federation = make_federation("lyon", tables=1)
    lyon = federation.centers["lyon"]
    (sampled,) = lyon.command_json("edition", "list")["editions"]
    assert (sampled["number"], sampled["because"]) == (1, "simulated data was imported")
    assert lyon.command_json("status")["edition"]["number"] == 1

    lyon.import_file("consents", _consents(tmp_path, OPENED))
    said = lyon.import_file("donors", _donors(tmp_path, OPENED), "--retire-dependents")
    assert "stay those of edition 1" in " ".join(said.split())
    network = connexon.connect(federation.researchers["ada"].home)
    donors = network.study(purpose="health", wait=WAIT).dataset("donors")

    def count(where: str = "", within: int | None = None) -> tuple[int, object]:
        asked = donors.where(where) if where else donors
        answer = asked.count(within=within)
        return answer.rows[0]["count"], answer

    free, answer = count()
    assert abs(free - 120) <= 60, "the sample's donors, as they were when the first edition was opened"
    assert answer.protection["lyon"].noise.charged == 0  # type: ignore[attr-defined]
    assert count()[0] == free

    # An edition of one's own data, within the year: the account has no tables left to pay.
    opened = lyon.command_json("edition", "open", "--because", "the sample is no center")["edition"]
    assert (opened["number"], opened["rho"]) == (2, 0)
    assert "is left for them" in opened["without_tables"]
    female = "sex = 'female'"
    first, _ = count(female, within=8)
    assert abs(first - OPENED / 2) <= 40

    lyon.import_file("consents", _consents(tmp_path, LATER))
    lyon.import_file("donors", _donors(tmp_path, LATER))
    assert count(female, within=8)[0] == first, "imports change no number"
    assert abs(count(f"{female} and country_iso2 = 'FR'", within=8)[0] - OPENED / 2) <= 40

    lyon.import_file("consents", _consents(tmp_path, LATER, withdrawn=200))
    assert count(female, within=8)[0] == first, "what was answered stands"
    anew, _ = count(f"{female} and country_iso2 in ('FR', 'JP')", within=8)
    assert abs(anew - (OPENED - 200) / 2) <= 40, "who withdrew is out of what is asked anew"
    tried = lyon.command_json("release", "try", "--dataset", "donors")
    assert tried["edition"] == 2
    assert tried["from_tables_of_edition"] is None

    lyon.command("edition", "open", "--because", "three times the donors")
    assert abs(count(female, within=8)[0] - (LATER - 200) / 2) <= 40
