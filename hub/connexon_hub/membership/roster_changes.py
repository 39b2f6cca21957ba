"""What a draft changes, shown to the person who is about to sign it: trust first, every key and every rule in full.

The draft comes from a hub that may be in other hands. No text of it may hide, imitate or push away a line, so nothing
is shortened here, what would not be seen is written out, and each fingerprint has a line of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from connexon.clock import DAY, HOUR, now_ms, to_text
from connexon.console import counted
from connexon.identity import keys as identity_keys
from connexon.identity.keys import CenterId, PublicKey
from connexon.identity.roster import Member, MemberStatus, Roster, RosterRefused
from connexon.identity.visible_text import escaped
from connexon_hub.membership.policy_changes import policy_changes

_SHOWN = {
    Roster: {"members", "hub_certificate_authority", "policy_files", "revoked_certificates", "lowest_protocol"}
    | {"federation", "serial", "issued_at_ms", "expires_at_ms"},
    Member: {"center", "legal_name", "country", "organisation_kind", "status", "accrediting_keys", "answering_keys"},
}
"""The parts that are shown here. What a later version adds is not signed before somebody shows it."""
USUAL_LIFE_MS = 100 * DAY
"""A roster that is believed for longer, and not just as long as the last one was, has an unusual end."""
_MANY_SERIALS = 1_000


@dataclass(frozen=True)
class Section:
    """Changes of one kind. `heading` is a sentence; `lines` are shown as they are, each on a line of its own."""

    heading: str
    lines: tuple[str, ...]


def changes(last: Roster | None, draft: Roster) -> list[Section]:
    """What a draft changes, what matters most for trust first; `last` is the roster signed before, or None.

    Raises RosterRefused where the draft holds something that is not shown here.
    """
    _require_shown()
    before = {} if last is None else {member.center: member for member in last.members}
    pairs = [(before.get(member.center), member) for member in draft.members]
    known = [(old, new) for old, new in pairs if old is not None]
    left = sorted(before.keys() - {member.center for member in draft.members})
    found = [
        _keys_exchanged(known),
        _authority(last, draft),
        _section("Certificates that were revoked and are no longer listed", _lifted(last, draft)),
        _section("Unusual dates or numbers", unusual(last, draft)),
        _section("Centers whose part changes", [line for old, new in known for line in _part(old, new)]),
        _section("New centers", [line for old, new in pairs if old is None for line in _newcomer(new)]),
        _section("Centers that are left out", left),
        *(_section(heading, lines) for heading, lines in policy_changes(last, draft)),
        _section("Names that change", [line for old, new in known for line in _name(old, new)]),
        _section("Other changes", [*_order_of_keys(known), *_protocol(last, draft), *_revoked(last, draft)]),
    ]
    sections = [section for section in found if section is not None]
    if not sections and last is not None and differ(last, draft):
        # INVARIANT: nothing is signed that differs and is not shown.
        raise RosterRefused(
            "The draft differs in something that cannot be shown, so it is not signed.", code=_NOT_SHOWN
        )
    return sections


def summary(sections: Sequence[Section]) -> str:
    """The headings in one line, for the question under a list that may have scrolled away."""
    return "; ".join(section.heading for section in sections) or "Nothing but the dates changes"


_NOT_SHOWN = "roster.not_shown"


def _require_shown() -> None:
    for kind, shown in _SHOWN.items():
        for name in {field.name for field in dataclasses.fields(kind)} - shown:
            raise RosterRefused(f"The draft's {name} cannot be shown, so it is not signed.", code=_NOT_SHOWN)


def _section(heading: str, lines: Iterable[str]) -> Section | None:
    found = tuple(lines)
    return Section(heading, found) if found else None


def differ(last: Roster, draft: Roster) -> bool:
    """Whether the two differ in more than serial number and dates."""
    dated = dataclasses.replace(
        last, serial=draft.serial, issued_at_ms=draft.issued_at_ms, expires_at_ms=draft.expires_at_ms
    )
    return dated != draft


def _uses(member: Member) -> tuple[tuple[str, tuple[PublicKey, ...]], ...]:
    return ("answers", member.answering_keys), ("accredits researchers", member.accrediting_keys)


def _fingerprint(data: bytes) -> str:
    return f"    {identity_keys.readable(identity_keys.fingerprint(data))}"


def _keys_exchanged(known: list[tuple[Member, Member]]) -> Section | None:
    lines: list[str] = []
    centers: list[CenterId] = []
    for old, new in known:
        found = list(_keys_of(old, new))
        if found:
            centers.append(new.center)
            lines += [f"{new.center}, {new.status.value}", *found]
    if not centers:
        return None
    number = f"{counted(len(centers), 'center')}: {', '.join(centers[:3])}{' and others' if len(centers) > 3 else ''}"
    return Section(f"KEYS CHANGE of {number}. Compare them by telephone", tuple(lines))


def _keys_of(old: Member, new: Member) -> Iterator[str]:
    for (use, before), (_, after) in zip(_uses(old), _uses(new), strict=True):
        for verb, keys in (
            (f"{use} with a new key", _without(after, before)),
            ("no longer with", _without(before, after)),
        ):
            if keys:
                yield f"  {verb}"
                yield from map(_fingerprint, keys)


def _without(keys: tuple[PublicKey, ...], others: tuple[PublicKey, ...]) -> list[PublicKey]:
    return [key for key in dict.fromkeys(keys) if key not in others]


def _authority(last: Roster | None, draft: Roster) -> Section | None:
    new = _fingerprint(draft.hub_certificate_authority)
    if last is None:
        return Section("The first roster that this root key signs", ("  the hub's certificate authority", new))
    if last.hub_certificate_authority == draft.hub_certificate_authority:
        return None
    lines = ("  becomes", new, "  was", _fingerprint(last.hub_certificate_authority))
    return Section("THE HUB'S CERTIFICATE AUTHORITY CHANGES. Sign only if you know why", lines)


def unusual(last: Roster | None, draft: Roster) -> list[str]:
    """What is unusual about serial number and dates, one sentence each."""
    life = draft.expires_at_ms - draft.issued_at_ms
    lines = []
    if not DAY <= life <= USUAL_LIFE_MS and (
        last is None or abs(life - (last.expires_at_ms - last.issued_at_ms)) > HOUR
    ):
        lines.append(f"  it is believed for {life / DAY:,.1f} days, until {to_text(draft.expires_at_ms)}")
    if abs(draft.issued_at_ms - now_ms()) > 30 * DAY:
        lines.append(f"  it says that it was drafted {to_text(draft.issued_at_ms)}")
    if last is not None and draft.expires_at_ms < last.expires_at_ms:
        lines.append(
            f"  it ends {to_text(draft.expires_at_ms)}, before the last one does, {to_text(last.expires_at_ms)}"
        )
    if draft.serial - (0 if last is None else last.serial) > _MANY_SERIALS:
        lines.append(
            f"  its serial number is {draft.serial}, far beyond the last one's: no smaller one is ever believed"
        )
    return lines


def _about(member: Member) -> str:
    return f"country {member.country}, {member.organisation_kind.value}, {member.status.value}"


def _part(old: Member, new: Member) -> Iterator[str]:
    if _about(old) != _about(new):
        yield new.center
        yield f"  becomes {_about(new)}"
        yield f"  was {_about(old)}"
        if new.status is MemberStatus.ACTIVE and old.status is not MemberStatus.ACTIVE:
            # Keys that nobody believed until now: as good as new ones.
            yield from _all_keys(new)


def _newcomer(new: Member) -> Iterator[str]:
    yield f"{new.center}, {_about(new)}"
    yield f"  {escaped(new.legal_name)}"
    yield from _all_keys(new)


def _all_keys(member: Member) -> Iterator[str]:
    for use, keys in _uses(member):
        yield f"  {use} with" if keys else f"  {use} with no key"
        yield from map(_fingerprint, dict.fromkeys(keys))


def _name(old: Member, new: Member) -> Iterator[str]:
    if old.legal_name != new.legal_name:
        yield from (new.center, f"  becomes {escaped(new.legal_name)}", f"  was {escaped(old.legal_name)}")


def _order_of_keys(known: list[tuple[Member, Member]]) -> Iterator[str]:
    for old, new in known:
        if _uses(old) != _uses(new) and not list(_keys_of(old, new)):
            yield f"  {new.center} lists the same keys in another order, or one of them twice"


def _protocol(last: Roster | None, draft: Roster) -> Iterator[str]:
    if last is not None and last.lowest_protocol != draft.lowest_protocol:
        yield f"  the lowest protocol becomes {draft.lowest_protocol}, was {last.lowest_protocol}"


def _lifted(last: Roster | None, draft: Roster) -> list[str]:
    # Right only after they have expired, which the hub alone knows.
    return [f"  {serial}" for serial in sorted(last.revoked_certificates - draft.revoked_certificates)] if last else []


def _revoked(last: Roster | None, draft: Roster) -> Iterator[str]:
    more = draft.revoked_certificates - (last.revoked_certificates if last else frozenset())
    yield from (f"  certificate {serial} is revoked" for serial in sorted(more))
