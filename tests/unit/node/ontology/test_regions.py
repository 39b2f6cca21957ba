"""Countries and the regions they lie in."""

from __future__ import annotations

import pytest

from connexon_node.ontology.regions import places_of, read_place


@pytest.mark.parametrize(
    ("country", "places"),
    [
        ("FR", {"ISO:FR", "M49:150", "M49:155", "REGION:EU", "REGION:EEA"}),
        ("CY", {"ISO:CY", "M49:142", "M49:145", "REGION:EU", "REGION:EEA"}),
        ("NO", {"ISO:NO", "M49:150", "M49:154", "REGION:EEA"}),
        ("BR", {"ISO:BR", "M49:019", "M49:419", "M49:005"}),
        ("TW", {"ISO:TW"}),
        ("XX", {"ISO:XX"}),
    ],
)
def test_a_country_lies_in_its_regions_and_nowhere_else(country: str, places: set[str]) -> None:
    assert places_of(country) == places


def test_every_country_lies_in_one_part_of_the_world_at_most() -> None:
    continents = {"M49:002", "M49:019", "M49:142", "M49:150", "M49:009"}
    letters = [chr(place) for place in range(ord("A"), ord("Z") + 1)]
    countries = [country for one in letters for two in letters if read_place(country := one + two)]
    assert len(countries) == 249
    assert {country for country in countries if len(places_of(country) & continents) != 1} == {"AQ", "TW"}
    assert sum("REGION:EU" in places_of(country) for country in countries) == 27


@pytest.mark.parametrize("text", ["", "-", "Europe", "fr", "ISO:UK", "REGION:MOON", "M49:", "FR\n"])
def test_what_is_no_place_is_not_read_as_one(text: str) -> None:
    assert read_place(text) is None
