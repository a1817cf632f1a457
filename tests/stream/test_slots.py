"""Names of covariates and the slots they fill, as the settings map them."""

from __future__ import annotations

from pathlib import Path

import pytest

from freshet.model.batch import KNOWN_SLOTS as OF_THE_NETWORK
from freshet.stream.config import CovariateSettings, load
from freshet.stream.errors import ConfigError
from freshet.stream.slots import KNOWN_SLOTS, Slot, covariate_slots


def test_the_slots_are_those_of_the_network_in_its_order() -> None:
    assert KNOWN_SLOTS == OF_THE_NETWORK


def test_event_and_closed_are_flags_and_free_slots_numbers_unless_a_flag_fills_them() -> None:
    slots = covariate_slots({"strike": "free_6", "free_2": "free_2"}, {"rain": "free_1"})
    assert slots["event"] == slots["holiday"] == Slot(3, flag=True)
    assert slots["closed"] == Slot(4, flag=True)
    assert slots["rain"] == slots["free_1"] == Slot(6, flag=False)
    assert slots["free_2"] == Slot(7, flag=True)
    assert slots["strike"] == slots["free_6"] == Slot(11, flag=True)
    assert not {"effect", "price_ratio", "promotion", "discount"} & slots.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flags": {"free_1": "free_2"}}, "'free_1' is a slot itself"),
        ({"flags": {"holiday": "closed"}}, "'holiday' is a slot itself"),
        ({"numbers": {"effect": "free_1"}}, "'effect' is a slot itself"),
        ({"flags": {"a": "free_1"}, "numbers": {"a": "free_2"}}, "'a' is both"),
        ({"flags": {"a": "free_1"}, "numbers": {"b": "free_1"}}, "'free_1' is both"),
        ({"numbers": {"a": "closed"}}, "Input should be 'free_1'"),
        ({"flags": {"a": "effect"}}, "Input should be 'event'"),
    ],
)
def test_a_name_that_could_mean_two_things_is_refused(
    settings: dict[str, dict[str, str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CovariateSettings.model_validate(settings)


def test_a_config_file_names_covariates_holidays_and_opening_hours(tmp_path: Path) -> None:
    file = tmp_path / "freshet.toml"
    file.write_text(
        '[calendar]\ntime_zone = "Europe/Berlin"\ncountry = "DE"\n'
        'country_of_region = { south = "DE-BY" }\n'
        'opening_hours = { mon = "09:00-12:30, 14:00-18:00", sun = "" }\n'
        '[covariates.flags]\nfair = "event"\n[covariates.numbers]\nrain = "free_1"\n'
    )
    settings = load(file, {"FRESHET_COVARIATES__NUMBERS": '{"snow": "free_3"}'}).settings
    assert settings.calendar.country_of_region == {"south": "DE-BY"}
    assert settings.calendar.opening_hours["mon"] == "09:00-12:30, 14:00-18:00"
    assert settings.covariates.flags == {"fair": "event"}
    assert settings.covariates.numbers == {"snow": "free_3"}


@pytest.mark.parametrize(
    "line",
    [
        'opening_hours = { mon = "9-12" }',
        'opening_hours = { mon = "09:00-24:30" }',
        'opening_hours = { monday = "" }',
        'country = "Germany"',
        'country_of_region = { n = "de" }',
    ],
)
def test_what_no_calendar_says_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "freshet.toml"
    file.write_text(f"[calendar]\n{line}\n")
    with pytest.raises(ConfigError, match=r"calendar\."):
        load(file, {})
