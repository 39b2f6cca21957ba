"""node.toml as joining writes it, and what stewards get wrong in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from connexon.errors import Misconfigured
from connexon_node import settings
from connexon_node.folder import NodeFolder
from connexon_node.settings import HubSection

HUB = HubSection(
    federation="alliance",
    center="kyoto",
    link_address="hub.example.org:7702",
    public_address="hub.example.org:7701",
    root_fingerprint="ab" * 32,
)


@pytest.fixture
def folder(tmp_path: Path) -> NodeFolder:
    folder = NodeFolder(tmp_path)
    folder.settings_file.write_text(settings.template(HUB))
    return folder


def test_the_values_that_the_template_shows_are_the_defaults(folder: NodeFolder) -> None:
    before = settings.load(folder)
    shown = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", folder.settings_file.read_text())
    folder.settings_file.write_text(shown)
    assert settings.load(folder).model_dump() == before.model_dump()
    assert before.hub == HUB


def test_every_setting_is_shown_in_the_template() -> None:
    text = settings.template(HUB)
    fields = settings.NodeSettings.model_fields
    sections = [field.annotation for field in fields.values() if hasattr(field.annotation, "model_fields")]
    names = [name for section in sections for name in section.model_fields]
    plain = [name for name, field in fields.items() if not hasattr(field.annotation, "model_fields")]
    for name in (*names, *plain):
        assert re.search(rf"(?m)^(# )?{name} = ", text), name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("minimum_donor = 3", "there is no setting release.minimum_donor; did you mean minimum_donors?"),
        ("zebra = 3", "there is no setting release.zebra"),
        ("minimum_donors = 0", "release.minimum_donors must be at least 1, not '0'"),
        ('minimum_donors = "few"', "release.minimum_donors must be a whole number, without quotes, not 'few'"),
        ("minimum_donors = 2.5", "release.minimum_donors must be a whole number, without quotes, not '2.5'"),
        ('rounding = "up"', "release.rounding must be 'nearest' or 'random', not 'up'"),
        ("[relase]", "there is no setting relase; did you mean release?"),
        ("[engine]\nmemory = '2 gigabytes'\n[zebra]", "engine.memory must be written such as '2GB', not '2 gigabytes'"),
        ("[engine]\nkind = 'spark'\n[zebra]", "engine: kind is spark, so spark_master must name a master"),
        ("[training]\nnoise = 'perhaps'\n[zebra]", "training.noise must be true or false, without quotes"),
        ("minimum_donors = ", "not right"),
    ],
)
def test_a_wrong_setting_is_named(folder: NodeFolder, wrong: str, said: str) -> None:
    # The section of the release is the last before those that the wrong setting may begin.
    text = re.sub(r"(?ms)^# Private numbers, the default.*", "", folder.settings_file.read_text())
    text = text.replace("# minimum_donors = 5", wrong)
    folder.settings_file.write_text(text)
    with pytest.raises(Misconfigured) as caught:
        settings.load(folder)
    assert said in caught.value.public


def test_the_environment_overrides_the_file(folder: NodeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNEXON_NODE__RELEASE__MINIMUM_DONORS", "12")
    assert settings.load(folder).release.minimum_donors == 12


def test_a_folder_without_a_node_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        NodeFolder.find(tmp_path)
    assert "connexon-node join" in caught.value.public
