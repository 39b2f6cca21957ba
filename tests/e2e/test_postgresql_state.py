"""A federation whose hub and node keep their state in PostgreSQL, named by URL, instead of files."""

from __future__ import annotations

from pathlib import Path

import pytest

import connexon
from deploy.local.federation import LocalFederation
from tests.support.in_process import commands_in_process
from tests.support.postgresql import PostgresqlServer


@pytest.mark.postgres
def test_hub_and_node_keep_their_state_in_postgresql_by_url(
    postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    with (
        postgresql_server.new_database() as hub_url,
        postgresql_server.new_database() as node_url,
        LocalFederation(tmp_path) as federation,
    ):
        with commands_in_process():
            federation.make_hub(state_url=hub_url)
            lyon = federation.join_center("lyon", state_url=node_url)
            lyon.command("ontology", "add", "--demo")
            lyon.command("sample", "--donors", "60", "--seed", "1", "--import")
            federation.sign_roster()
            federation.start()
            ada = federation.accredit("ada", home="lyon")

        before = connexon.connect(ada.home).study(purpose="health", wait=30).dataset("cell_lines").count()
        assert [part.status.value for part in before.centers] == ["released"]

        # Both are killed: what they knew is in PostgreSQL.
        lyon.service.kill()
        federation.hub.kill()
        federation.start_hub()
        federation.start()
        again = connexon.connect(ada.home).result(before.query_id, wait=30)
        assert again.rows == before.rows
        # Also asked anew: what was drawn and paid for is there, too.
        anew = connexon.connect(ada.home).study(purpose="health", wait=30).dataset("cell_lines").count()
        assert anew.rows == before.rows
        assert [part.noise.charged for part in anew.protection.values() if part.noise] == [0.0]
        assert lyon.command_json("audit", "verify")["ok"] is True
        asked = {query["query_id"] for query in ada.command_json("queries")["queries"]}
        assert asked == {before.query_id, anew.query_id}
        assert not [file for folder in (federation.hub_folder, lyon.folder) for file in folder.glob("*.db")]
        # Both are stopped before their databases go.
        federation.stop()
