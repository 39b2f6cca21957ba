"""Joining a federation over a real socket, accrediting, and what the doctor says of the result."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connexon.client.home import Login, accreditation_request
from connexon.clock import DAY, midnight, now_ms
from connexon.errors import Conflict, ConnexonError, Misconfigured, Unavailable
from connexon.findings import State, examined
from connexon.identity import certificates, credential, invitation
from connexon.identity import keys as identity_keys
from connexon.identity import roster as rosters
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import SigningKey
from connexon.query.purpose import parse_purpose
from connexon.v1 import link_pb2, membership_pb2
from connexon_node import cli, settings
from connexon_node.cli import app
from connexon_node.consent.evaluation import Verdict
from connexon_node.consent.profile import ConsentProfile
from connexon_node.folder import NodeFolder
from connexon_node.health import doctor
from connexon_node.lock import is_served, only_one
from connexon_node.membership import accreditation, joining, keys
from connexon_node.membership.joining import Joined
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.policy.request import Requester, ask
from connexon_node.state import open_state
from tests.support.federation import Federation, new_federation
from tests.support.rules import baseline, judged
from tests.support.small_hub import SmallHub, goodbye


@pytest.fixture
def folder(tmp_path: Path) -> NodeFolder:
    return NodeFolder(tmp_path / "kyoto")


def invite(federation: Federation, hub: SmallHub, **changes: object) -> membership_pb2.Invitation:
    fields: dict[str, object] = {
        "federation": federation.name,
        "center_id": "kyoto",
        "hub_address": hub.public_address,
        "link_address": hub.address,
        "hub_certificate_authority": federation.authority.der,
        "root_fingerprint": federation.root_fingerprint,
        "token": bytes(32),
        "expires_at_ms": now_ms() + DAY,
        "roster_serial": rosters.peek(hub.roster).serial,
        "roster_sha256": hashlib.sha256(hub.roster.payload).digest(),
    }
    return membership_pb2.Invitation(**{**fields, **changes})  # type: ignore[arg-type]


def with_hub(federation: Federation, story: Callable[[SmallHub], None]) -> None:
    """Run a hub in this thread's loop and the story in another thread."""

    async def run() -> None:
        hub = SmallHub(federation)
        await hub.start()
        try:
            await asyncio.to_thread(story, hub)
        finally:
            await hub.stop()

    asyncio.run(run())


def join(federation: Federation, folder: NodeFolder, **changes: object) -> Joined:
    joined: list[Joined] = []
    with_hub(federation, lambda hub: joined.append(joining.join(folder, invite(federation, hub, **changes))))
    return joined[0]


def test_joining_makes_private_keys_a_certificate_settings_and_a_believed_roster(
    federation: Federation, folder: NodeFolder
) -> None:
    joined = join(federation, folder)
    assert (joined.center, joined.federation) == ("kyoto", "alliance")
    for file in folder.keys.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    held, node_keys = LinkCertificate.load(folder), NodeKeys.load(folder)
    assert str(certificates.spiffe_id(held.certificate)) == "spiffe://alliance/center/kyoto"
    assert keys.is_for(held.certificate, node_keys.link)
    loaded = settings.load(folder)
    assert loaded.hub.root_fingerprint == federation.root_fingerprint.hex()
    assert (loaded.release.minimum_donors, loaded.keep_days) == (5, 7)
    keeper = RosterKeeper(
        open_state(folder.default_state_url), root_fingerprint=federation.root_fingerprint, federation="alliance"
    )
    assert keeper.serial == 1
    answering = identity_keys.readable(identity_keys.fingerprint(node_keys.answering.public))
    assert joined.answering_fingerprint == answering


def test_interrupted_joining_goes_on_with_the_same_keys(federation: Federation, folder: NodeFolder) -> None:
    def story(hub: SmallHub) -> None:
        hub.fail_joins = 1
        with pytest.raises(Unavailable):
            joining.join(folder, invite(federation, hub))
        joining.join(folder, invite(federation, hub))
        joining.join(folder, invite(federation, hub))
        assert len({request.answering_key + request.accrediting_key for request in hub.joined}) == 1

    with_hub(federation, story)


def test_a_database_that_cannot_be_used_is_said_before_keys_are_made(
    federation: Federation, folder: NodeFolder, tmp_path: Path
) -> None:
    def story(hub: SmallHub) -> None:
        with pytest.raises(Misconfigured) as refusal:
            joining.join(folder, invite(federation, hub), state_url=f"sqlite:///{tmp_path}/missing/state.db")
        assert refusal.value.code == "database.unreachable"
        assert not folder.root.exists()
        assert hub.joined == []
        joining.join(folder, invite(federation, hub), state_url=f"sqlite:///{tmp_path}/state.db")
        with pytest.raises(Conflict):
            joining.join(folder, invite(federation, hub), state_url="sqlite:///other.db")

    with_hub(federation, story)


def test_joining_again_keeps_the_stewards_settings_and_takes_the_new_address(
    federation: Federation, folder: NodeFolder
) -> None:
    def story(hub: SmallHub) -> None:
        joining.join(folder, invite(federation, hub))
        text = folder.settings_file.read_text().replace("# minimum_donors = 5", "minimum_donors = 11")
        folder.settings_file.write_text(text)
        joining.join(folder, invite(federation, hub, link_address="hub.example.org:443"))
        loaded = settings.load(folder)
        assert (loaded.release.minimum_donors, loaded.hub.link_address) == (11, "hub.example.org:443")

    with_hub(federation, story)


def test_a_folder_of_one_center_does_not_become_anothers(federation: Federation, folder: NodeFolder) -> None:
    join(federation, folder)
    with pytest.raises(ConnexonError) as caught:
        join(federation, folder, center_id="boston")
    assert caught.value.code == "node.already_here"


@pytest.mark.parametrize(
    ("serial", "sha256", "code"),
    [(4, b"\1" * 32, "roster.older"), (3, b"\1" * 32, "roster.forked"), (3, None, ""), (2, b"\1" * 32, "")],
)
def test_a_node_starts_from_no_older_roster_than_its_invitation_names(
    federation: Federation, folder: NodeFolder, serial: int, sha256: bytes | None, code: str
) -> None:
    def story(hub: SmallHub) -> None:
        hub.roster = federation.signed_roster(federation.roster(serial=3))
        digest = hashlib.sha256(hub.roster.payload).digest() if sha256 is None else sha256
        invited = invite(federation, hub, roster_serial=serial, roster_sha256=digest)
        if not code:
            assert joining.join(folder, invited).roster.serial == 3
            return
        with pytest.raises(rosters.RosterRefused) as caught:
            joining.join(folder, invited)
        assert caught.value.code == code
        assert "invitation" in caught.value.public
        assert not folder.settings_file.exists()

    with_hub(federation, story)


def test_a_hub_that_shows_another_roots_roster_is_not_joined(federation: Federation, folder: NodeFolder) -> None:
    with pytest.raises(rosters.RosterRefused) as caught:
        join(federation, folder, root_fingerprint=bytes(32))
    assert caught.value.code == "roster.other_root"
    assert not folder.settings_file.exists()


def test_a_hub_of_another_authority_than_the_invitations_is_not_spoken_to(
    federation: Federation, folder: NodeFolder
) -> None:
    with pytest.raises(Unavailable):
        join(federation, folder, hub_certificate_authority=new_federation().authority.der)


def test_a_certificate_for_another_center_is_not_taken(federation: Federation, folder: NodeFolder) -> None:
    with pytest.raises(Misconfigured) as caught:
        join(federation, folder, center_id="lyon")
    assert caught.value.code == "certificate.mismatch"


def test_a_code_may_lie_in_a_file(federation: Federation, tmp_path: Path) -> None:
    code = invitation.to_code(invite(federation, SmallHub(federation)))
    file = tmp_path / "code.txt"
    file.write_text(code[:40] + "\n" + code[40:] + "\n")
    assert joining.read_code(str(file)) == joining.read_code(code)


@pytest.mark.parametrize(
    "name", ["no-such-file", "kyoto.invitaton", "kyoto.invitation", "./kyoto", "missing/kyoto.invitation"]
)
def test_an_invitation_that_is_not_where_it_was_said_is_called_so(name: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        joining.read_code(name)
    assert refusal.value.code == "invitation.no_file"
    assert f"There is no file {name}." in refusal.value.public


@pytest.mark.parametrize("code", ["x" * 5_000, "cnx1-abc/def"])
def test_a_code_that_is_not_whole_is_not_taken_for_a_file(code: str) -> None:
    with pytest.raises(invitation.InvitationRefused):
        joining.read_code(code)


def without_kyoto(federation: Federation) -> rosters.Roster:
    """The roster from before Kyoto was admitted."""
    roster = federation.roster()
    return replace(roster, members=tuple(member for member in roster.members if member.center != "kyoto"))


class TestAccrediting:
    def issue(
        self, folder: NodeFolder, request: accreditation.Request, *, days: int = 30, grants: tuple[str, ...] = ()
    ) -> str:
        return accreditation.issue(
            request,
            key=NodeKeys.load(folder).accrediting,
            hub=settings.load(folder).hub,
            subject="ada",
            name="Ada L.",
            role="researcher",
            days=days,
            grants=list(grants),
        )[0]

    def test_a_login_file_is_what_the_client_reads_and_centers_believe(
        self, federation: Federation, folder: NodeFolder
    ) -> None:
        join(federation, folder)
        key = SigningKey.generate()
        request = accreditation.read_request(json.dumps(accreditation_request(key)))
        token = self.issue(folder, request, grants=("ControlledAccessGrants=registry-7",))
        document = accreditation.login_document(
            settings.load(folder).hub,
            (folder.keys / keys.AUTHORITY).read_bytes(),
            token,
            rosters.RosterPin(7, bytes(32)),
        )
        login = Login.from_text(json.dumps(document))
        assert login.roster == rosters.RosterPin(7, bytes(32))
        assert login.hub_certificate_authority == federation.authority.der
        kyoto = federation.centers["kyoto"]
        member = replace(kyoto.member, accrediting_keys=(NodeKeys.load(folder).accrediting.public,))
        federation.centers["kyoto"] = replace(kyoto, member=member)
        researcher = credential.verify(login.credential, federation.roster(), NOTHING_REVOKED)
        assert (researcher.id, researcher.key) == ("kyoto/ada", key.public)
        assert [(grant.type, grant.value) for grant in researcher.grants] == [("ControlledAccessGrants", "registry-7")]

    def accredited(
        self, federation: Federation, folder: NodeFolder, *grants: str, on: str, monkeypatch: pytest.MonkeyPatch
    ) -> credential.Researcher:
        """Who other centers take ada for, after the steward accredited them on a day with  connexon-node accredit."""
        moment = midnight(on) + DAY // 2
        monkeypatch.setattr(accreditation, "now_ms", lambda: moment)
        request = json.dumps(accreditation_request(SigningKey.generate()))
        options = [part for grant in grants for part in ("--grant", f"ControlledAccessGrants={grant}")]
        arguments = ["accredit", request, "--subject", "ada", "--name", "Ada", "--dir", str(folder.root), *options]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        token = json.loads(done.stdout)["credential"]
        kyoto = federation.centers["kyoto"]
        member = replace(kyoto.member, accrediting_keys=(NodeKeys.load(folder).accrediting.public,))
        federation.centers["kyoto"] = replace(kyoto, member=member)
        return credential.verify(token, federation.roster(), NOTHING_REVOKED, at_ms=moment)

    def test_a_time_limit_runs_out_though_the_credential_is_renewed(
        self, federation: Federation, folder: NodeFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        join(federation, folder)
        six_months = ConsentProfile.parse("DUO:0000042", ["DUO:0000025=6"])
        purpose = parse_purpose("health", project="atlas")
        verdicts = []
        for day in ("2025-01-15", "2025-04-10", "2025-07-05", "2025-09-20"):
            ada = self.accredited(federation, folder, "atlas", on=day, monkeypatch=monkeypatch)
            at_ms = midnight(day) + DAY // 2
            request = ask(Requester.of(ada, at_ms=at_ms), purpose, disease=frozenset(), at_ms=at_ms)
            verdicts += [one.verdict for one in judged(request, six_months)]
        assert verdicts == [Verdict.PERMIT, Verdict.PERMIT, Verdict.PERMIT, Verdict.DENY]

    def test_a_renewal_keeps_the_first_day_of_a_grant_unless_a_day_is_said(
        self, federation: Federation, folder: NodeFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        join(federation, folder)
        days = []
        for on, *grants in (
            ("2025-06-01", "atlas@2024-11-30", "registry"),
            ("2025-08-01", "atlas", "registry"),
            ("2025-10-01", "atlas@2025-01-15", "registry"),
            ("2025-12-01", "atlas", "registry", "ada@example.org"),
        ):
            ada = self.accredited(federation, folder, *grants, on=on, monkeypatch=monkeypatch)
            days.append({grant.value: grant.asserted_ms for grant in ada.grants})
        assert days == [
            {value: midnight(day) for value, day in expected.items()}
            for expected in (
                {"atlas": "2024-11-30", "registry": "2025-06-01"},
                {"atlas": "2024-11-30", "registry": "2025-06-01"},
                {"atlas": "2025-01-15", "registry": "2025-06-01"},
                {"atlas": "2025-01-15", "registry": "2025-06-01", "ada@example.org": "2025-12-01"},
            )
        ]

    @pytest.mark.parametrize(
        ("grant", "code"),
        [
            ("ControlledAccessGrants", "accreditation.bad_grant"),
            ("ControlledAccessGrants=@2025-01-15", "accreditation.bad_grant"),
            ("ControlledAccessGrants=atlas@2025-1-15", "accreditation.bad_grant"),
            ("ControlledAccessGrants=atlas@15/01/2025", "accreditation.bad_grant"),
            ("ControlledAccessGrants=two\nlines", "accreditation.bad_grant"),
            ("ControlledAccessGrants=atlas@9000-01-01", "accreditation.future_grant"),
        ],
    )
    def test_a_grant_that_cannot_be_meant_is_refused(
        self, federation: Federation, folder: NodeFolder, grant: str, code: str
    ) -> None:
        join(federation, folder)
        request = accreditation.read_request(json.dumps(accreditation_request(SigningKey.generate())))
        with pytest.raises(accreditation.RequestRefused) as caught:
            self.issue(folder, request, grants=(grant,))
        assert caught.value.code == code

    def test_a_request_whose_proof_is_by_another_key_is_refused(self) -> None:
        request = accreditation_request(SigningKey.generate())
        request["public_key"] = identity_keys.base64url(SigningKey.generate().public)
        with pytest.raises(accreditation.RequestRefused) as caught:
            accreditation.read_request(json.dumps(request))
        assert caught.value.code == "accreditation.bad_proof"

    @pytest.mark.parametrize("text", ["{}", '{"connexon": "login"}', "{not json", '{"connexon": 1, "proof": []}'])
    def test_anything_else_is_no_request(self, text: str) -> None:
        with pytest.raises(accreditation.RequestRefused):
            accreditation.read_request(text)

    def test_a_grant_without_a_value_is_refused(self, federation: Federation, folder: NodeFolder) -> None:
        join(federation, folder)
        request = accreditation.read_request(json.dumps(accreditation_request(SigningKey.generate())))
        with pytest.raises(accreditation.RequestRefused):
            self.issue(folder, request, grants=("ControlledAccessGrants",))

    def test_who_gets_no_login_file_is_not_accredited(
        self, federation: Federation, folder: NodeFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        join(federation, folder)
        monkeypatch.chdir(folder.root)
        request = json.dumps(accreditation_request(SigningKey.generate()))
        words = ["connexon-node", "accredit", request, "--subject", "ada", "--out", "missing/ada.json"]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 1
        assert accreditation.Accreditations(open_state(folder.default_state_url)).all() == []


class TestDoctor:
    def states(self, folder: NodeFolder) -> dict[str, State]:
        return {finding.name: finding.state for finding in examined(doctor.checks(folder))}

    def findings(self, folder: NodeFolder) -> dict[str, str]:
        return {finding.name: finding.sentence for finding in examined(doctor.checks(folder))}

    def admit(self, federation: Federation, folder: NodeFolder) -> None:
        """Put the node's own keys into the next roster."""
        node_keys = NodeKeys.load(folder)
        kyoto = federation.centers["kyoto"]
        member = replace(
            kyoto.member,
            accrediting_keys=(node_keys.accrediting.public,),
            answering_keys=(node_keys.answering.public,),
        )
        federation.centers["kyoto"] = replace(kyoto, member=member)
        keeper = RosterKeeper(
            open_state(folder.default_state_url), root_fingerprint=federation.root_fingerprint, federation="alliance"
        )
        keeper.receive(federation.signed_roster(federation.roster(serial=2)))

    def test_a_joined_and_admitted_node_has_no_broken_hop(self, federation: Federation, folder: NodeFolder) -> None:
        federation.policy_files = baseline()

        def story(hub: SmallHub) -> None:
            joining.join(folder, invite(federation, hub))
            self.admit(federation, folder)
            broken = [finding for finding in examined(doctor.checks(folder)) if finding.state is State.BROKEN]
            assert broken == []
            assert len(hub.sessions) == 1

        with_hub(federation, story)

    def test_before_the_first_serve_the_roster_of_joining_is_called_what_it_is(
        self, federation: Federation, folder: NodeFolder
    ) -> None:
        def story(hub: SmallHub) -> None:
            hub.roster = federation.signed_roster(without_kyoto(federation))
            joining.join(folder, invite(federation, hub))
            assert self.states(folder)["roster"] is State.NOTE
            assert "the hub accepts it, so there is a newer one: connexon-node serve" in self.findings(folder)["roster"]
            hub.greet = lambda _: goodbye("membership.joined", "kyoto is not yet active.", retry=True)
            assert self.states(folder)["roster"] is State.BROKEN
            said = self.findings(folder)["roster"]
            assert "start it with connexon-node serve" in said
            assert "is not a member" not in said

        with_hub(federation, story)

    def test_a_serving_node_that_is_not_attached_may_have_an_older_roster(
        self, federation: Federation, folder: NodeFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def story(hub: SmallHub) -> None:
            hub.roster = federation.signed_roster(without_kyoto(federation))
            joining.join(folder, invite(federation, hub))
            for since, said in ((None, "Newer ones come once the node is attached."), (1, "is not a member of")):
                serving = {"attached_since_ms": since, "problem": ""}
                monkeypatch.setattr(doctor, "served_state", lambda _, serving=serving: serving)
                assert said in self.findings(folder)["roster"]

        with_hub(federation, story)

    def test_each_broken_hop_is_named_and_hides_no_other(self, federation: Federation, folder: NodeFolder) -> None:
        join(federation, folder)
        (folder.keys / keys.CERTIFICATE).write_text("not a certificate")
        (folder.policies / "own.cedar").write_text("permit (principal, action, resource) when { broken")
        states = self.states(folder)
        broken = {name for name, state in states.items() if state is State.BROKEN}
        assert {"port", "TLS", "hub session", "certificate", "policy"} <= broken
        assert {states[name] for name in ("settings", "name resolution", "database", "disk")} == {State.GOOD}
        assert self.findings(folder)["name resolution"] == "127.0.0.1 is an address already."

    def test_a_name_that_does_not_resolve_is_the_broken_hop(self, federation: Federation, folder: NodeFolder) -> None:
        join(federation, folder, link_address="hub.invalid:443")
        assert "hub.invalid cannot be resolved" in self.findings(folder)["name resolution"]

    def test_a_hub_with_another_certificate_is_found_at_tls_not_at_the_port(
        self, federation: Federation, folder: NodeFolder
    ) -> None:
        def story(hub: SmallHub) -> None:
            joining.join(folder, invite(federation, hub))
            keys.save_authority(folder, new_federation().authority.der)
            states = self.states(folder)
            assert (states["port"], states["TLS"]) == (State.GOOD, State.BROKEN)

        with_hub(federation, story)

    def test_what_the_hub_says_is_what_the_doctor_says(self, federation: Federation, folder: NodeFolder) -> None:
        def suspended(_: link_pb2.Hello) -> link_pb2.AttachResponse:
            return goodbye("membership.suspended", "kyoto is suspended.", retry=False)

        def story(hub: SmallHub) -> None:
            joining.join(folder, invite(federation, hub))
            hub.greet = suspended
            assert self.findings(folder)["hub session"] == "kyoto is suspended."

        with_hub(federation, story)

    def test_an_expired_certificate_and_other_keys_in_the_roster_are_named(
        self, federation: Federation, folder: NodeFolder
    ) -> None:
        join(federation, folder)
        node_keys = NodeKeys.load(folder)
        identity_held = certificates.spiffe_id(LinkCertificate.load(folder).certificate)
        expired = federation.authority.issue_link(
            node_keys.link.request(), identity_held, life=datetime.timedelta(seconds=-1)
        )
        LinkCertificate(expired).save(folder)
        findings = self.findings(folder)
        assert "expired" in findings["certificate"]
        assert "other keys" in findings["roster"]
        assert identity_keys.readable(identity_keys.fingerprint(node_keys.answering.public)) in findings["roster"]


def test_one_process_at_a_time_serves_a_folder(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path)
    assert not is_served(folder)
    with only_one(folder):
        assert is_served(folder)
        with pytest.raises(ConnexonError) as caught, only_one(folder):
            pass
        assert caught.value.code == "node.already_serving"
    assert not is_served(folder)
