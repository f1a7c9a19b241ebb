"""Presets: four domains, whose events and settings the rest of the trainer takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from xrec_sdk.errors import DataError, UsageError
from xrec_trainer.config import FitConfig, parse
from xrec_trainer.presets import PRESETS, load_preset
from xrec_trainer.sources import read_sources

SOURCES = """\
preset = "education"

[[source]]
name = "app"
files = "events.csv"
columns = { user_id = "u", item_id = "i", event = "e", at = "t" }
constants = { device = "phone" }
events = { lesson_start = "view", opened = "start" }
"""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_configuration(name: str) -> None:
    preset = load_preset(name)
    config = parse(preset.values(), ["seed=3"])
    assert isinstance(config, FitConfig) and config.targets == preset.targets and config.seed == 3
    assert set(preset.targets) <= set(preset.event_names)
    assert not set(preset.targets) & {event for event, _ in preset.auxiliary_targets}


def test_a_setting_given_by_hand_wins_over_the_preset() -> None:
    values = load_preset("social").values()
    assert values["half_life_days"] == 2.0
    assert parse(values, ["half_life_days=5"]).half_life_days == 5.0


def test_sources_know_the_names_of_their_domain_and_their_own_win(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text(SOURCES)
    events = read_sources(tmp_path / "sources.toml").sources[0].events
    assert events["lesson_complete"] == "complete" and events["complete"] == "complete"
    assert events["lesson_start"] == "view" and events["opened"] == "start"


def test_an_unknown_preset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_preset("gardening")
    assert caught.value.code == "usage.preset" and "ecommerce, education" in str(caught.value)
    (tmp_path / "sources.toml").write_text(SOURCES.replace("education", "gardening"))
    with pytest.raises(DataError, match="preset must be one of"):
        read_sources(tmp_path / "sources.toml")
