"""The attacks: each plays one or two researchers and says of each target what it is sure of (None: nothing)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from connexon.conditions.filters import Compare, Filter, IsMissing, Not, OneOf, Operator
from connexon_node.settings import ReleaseSection
from tests.redteam.target import (
    AGES,
    COMMON,
    LOT_OF_TARGETS,
    MINIMUM,
    OTHER,
    SECRET,
    TARGETS,
    Target,
    both,
    either,
    is_,
    isnt,
    minus,
    second_line_on,
    told,
)

Claims = Mapping[str, bool | None]
Attack = Callable[[Target], Claims]
HAS = is_("primary_disease_term", SECRET)


def by_one_donor(node: Target) -> Claims:
    """Everybody with the disease, and everybody but one (the complement of one within the selected)."""
    everybody = node.count(HAS)
    return {one: told(minus(everybody, node.count(both(HAS, isnt("country_iso2", one))))) for one in TARGETS}


def by_one_donor_backwards(node: Target) -> Claims:
    """Everybody but one first."""
    without = {one: node.count(both(HAS, isnt("country_iso2", one))) for one in TARGETS}
    everybody = node.count(HAS)
    return {one: told(minus(everybody, without[one])) for one in TARGETS}


def individual_tracker(node: Target) -> Claims:
    """C = A and B, from A and from A without B (Schlörer 1975)."""
    claims = {}
    for number, one in enumerate(TARGETS):
        age = is_("age_range_y", AGES[number % 4])
        padded = node.count(age)
        tracker = node.count(both(age, Not(both(is_("country_iso2", one), HAS))))
        claims[one] = told(minus(padded, tracker))
    return claims


def general_tracker(node: Target) -> Claims:
    """q(C) = q(C or T) + q(C or not T) - q(T) - q(not T) (Denning, Denning and Schwartz, ACM TODS 1979)."""
    tracker, rest = is_("sex", "female"), isnt("sex", "female")
    base = (node.count(tracker), node.count(rest))
    claims = {}
    for one in TARGETS:
        single = both(is_("country_iso2", one), HAS)
        parts = (node.count(either(single, tracker)), node.count(either(single, rest)))
        known = None if None in base or None in parts else sum(parts) - sum(base)  # type: ignore[arg-type]
        claims[one] = told(known)
    return claims


def complement(node: Target) -> Claims:
    """Everybody but those who are the target and have it."""
    everybody = node.count()
    return {one: told(minus(everybody, node.count(Not(both(is_("country_iso2", one), HAS))))) for one in TARGETS}


def margins(node: Target) -> Claims:
    """A table's sum beside its shown groups: what is missing is the target's."""
    claims = {}
    for one in TARGETS:
        where = OneOf("country_iso2", ("FR", one))
        table = node.table(("country_iso2",), both(where, HAS))
        claims[one] = told(minus(node.count(both(where, HAS)), sum(table.values()) if table else None))
    return claims


def margins_known_before(node: Target) -> Claims:
    """The sum first; then the table, by another field."""
    claims = {}
    for one in TARGETS:
        where = both(OneOf("country_iso2", ("DE", "IT", one)), HAS)
        total = node.count(where)
        claims[one] = told(minus(total, sum(node.table(("country_iso2",), where).values()) or None))
    return claims


def another_grouping(node: Target) -> Claims:
    """One grouping beside a finer one, line by line."""
    by_disease = node.table(("primary_disease_term",))
    by_both = node.table(("primary_disease_term", "country_iso2"))
    missing = by_disease.get((SECRET,), 0) - sum(by_both.get((SECRET, one), 0) for one in COMMON)
    others = by_disease.get((OTHER,), 0) - sum(by_both.get((OTHER, one), 0) for one in COMMON)
    claims: dict[str, bool | None] = dict.fromkeys(TARGETS)
    if others == 0 and missing:
        claims.update(dict.fromkeys(TARGETS, True))
    for number, one in enumerate(TARGETS):
        where = both(is_("sex", ("female", "male")[number % 2]), OneOf("country_iso2", (*COMMON, one)))
        coarse = node.table(("primary_disease_term",), where)
        fine = node.table(("primary_disease_term", "country_iso2"), where)
        claims[one] = told(
            minus(coarse.get((SECRET,)), sum(fine.get((SECRET, common), 0) for common in COMMON) or None)
        )
    return claims


def sums_of_cells(node: Target) -> Claims:
    """Two groups with the target among them first; then the groups one by one."""
    claims = {}
    for one in TARGETS:
        together = node.count(both(HAS, OneOf("country_iso2", ("FR", "IT", one))))
        single = [node.count(both(HAS, is_("country_iso2", country))) for country in ("FR", "IT")]
        claims[one] = told(None if together is None or None in single else together - sum(single))  # type: ignore[arg-type]
    return claims


def averaging(node: Target) -> Claims:
    """Asking many times under random rounding: the two numbers that come have the true one between them."""
    return _between(node, lambda where, _: where)


def paraphrasing(node: Target) -> Claims:
    """The same in ever other words: a draw for each wording would give the number away as asking again does."""

    def other_words(where: Filter, turn: int) -> Filter:
        age = OneOf("age_range_y", AGES[turn % 4 :] + AGES[: turn % 4])
        for _ in range(2 * (turn % 3)):
            where = Not(where)
        return both(age, where) if turn % 2 else both(where, age)

    return _between(node, other_words)


def _between(node: Target, worded: Callable[[Filter, int], Filter]) -> Claims:
    section = ReleaseSection(minimum_donors=MINIMUM, round_to=2, rounding="random")
    node.begin(release=node.release, section=section)

    def found(where: Filter) -> float:
        return statistics.mean({node.count(worded(where, turn)) or 0 for turn in range(12)})

    everybody = found(HAS)
    return {one: told(int(everybody - found(both(HAS, isnt("country_iso2", one))))) for one in TARGETS[:4]}


def equivalent_words(node: Target) -> Claims:
    """Exact counts of the same in other words: lists, double negation, ranges, not missing."""
    everybody = node.count(Not(Not(both(HAS, Not(IsMissing("country_iso2"))))))
    claims = {}
    for one in TARGETS:
        others = tuple(country for country in (*COMMON, *TARGETS) if country != one)
        claims[one] = told(minus(everybody, node.count(both(OneOf("country_iso2", others), Not(Not(HAS))))))
    return claims


def colluding(node: Target) -> Claims:
    """Two researchers, each with one half of it."""
    everybody = node.count(HAS, who="ada")
    return {one: told(minus(everybody, node.count(both(HAS, isnt("country_iso2", one)), who="eve"))) for one in TARGETS}


def restarting(node: Target) -> Claims:
    """The node restarts between the two."""
    everybody = node.count(HAS)
    node.restart()
    return {one: told(minus(everybody, node.count(both(HAS, isnt("country_iso2", one))))) for one in TARGETS}


def importing_again(node: Target) -> Claims:
    """The target is known to be missing in the next import."""
    claims = {}
    for one in TARGETS[:4]:
        before = node.count(HAS)
        node.import_donors(without=[one])
        claims[one] = told(minus(before, node.count(HAS)))
        node.import_donors()
    return claims


def import_and_table(node: Target) -> Claims:
    """The sum before an import, and the groups after it: nobody asked for these before."""
    claims = {}
    for number, one in enumerate(TARGETS[:4]):
        where = both(HAS, is_("age_range_y", AGES[number % 4]))
        before = node.count(where)
        node.import_donors(without=[one])
        claims[one] = told(minus(before, sum(node.table(("sex",), where).values()) or None))
        node.import_donors()
    return claims


def explosion(node: Target) -> Claims:
    """Grouping by all that can be grouped by: small groups show, or are counted by what is missing."""
    fields = ("country_iso2", "primary_disease_term", "sex", "age_range_y")
    claims: dict[str, bool | None] = {}
    cells = node.table(fields)
    total = node.count(HAS)
    shown = sum(count for key, count in cells.items() if key[1] == SECRET)
    everything = {
        one: node.table(fields[:2], either(is_("country_iso2", one), both(HAS, is_("country_iso2", "FR"))))
        for one in TARGETS
    }
    for one in TARGETS:
        whole = node.count(either(both(is_("country_iso2", one), HAS), both(HAS, is_("country_iso2", "FR"))))
        claims[one] = told(minus(whole, everything[one].get(("FR", SECRET))))
        if any(key[0] == one for key in (*cells, *everything[one])) or (total is not None and shown > total):
            claims[one] = (one, SECRET) in everything[one]
    return claims


def other_records(node: Target) -> Claims:
    """The same donors, other records of theirs: all lines, and all but the one of a certain day."""
    everything = node.count(None, dataset="cell_lines")
    claims = {}
    for number, one in enumerate(TARGETS):
        but = Compare("derived_on", Operator.NOT_EQUAL, second_line_on(number))
        claims[one] = told(minus(everything, node.count(but, dataset="cell_lines")))
    return claims


def bisection(node: Target) -> Claims:
    """Ranges of a measured number that close in: a step by one donor is that donor's value."""

    def up_to(bound: float) -> int | None:
        return node.count(Compare("cells_per_vial_1e6", Operator.LESS_OR_EQUAL, bound), dataset="lots")

    bounds = [up_to(LOT_OF_TARGETS + number - 0.5) for number in range(len(TARGETS) + 1)]
    return {one: told(minus(bounds[number + 1], bounds[number])) for number, one in enumerate(TARGETS)}


def words_of_refusal(node: Target) -> Claims:
    """What is said where nobody is counted, and where one is: any difference tells."""
    claims = {}
    for one in TARGETS:
        asked = node.answer("donors", both(is_("country_iso2", one), HAS))
        nobody = node.answer("donors", both(is_("country_iso2", one), is_("country_iso2", "FR")))
        for answer in (asked, nobody):
            for name in ("query_id", "query_sha256", "answered_at_ms"):
                answer.ClearField(name)
        claims[one] = True if asked != nobody else None
    return claims


ATTACKS: tuple[Attack, ...] = (
    by_one_donor,
    by_one_donor_backwards,
    individual_tracker,
    general_tracker,
    complement,
    margins,
    margins_known_before,
    another_grouping,
    sums_of_cells,
    averaging,
    paraphrasing,
    equivalent_words,
    colluding,
    restarting,
    importing_again,
    import_and_table,
    explosion,
    other_records,
    bisection,
)
"""Attacks that win where answers are not compared with each other."""
