"""`freshet explain` on a table: the right cutoff, the right plan, words, numbers and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from freshet.cli.explain import explain
from freshet.model.adapter import write_adapter
from freshet.model.explain.item import ASSOCIATION, NEVER_PROMOTED, Question, answer
from freshet.model.explain.options import parse_promotion, parse_steps
from freshet.model.explain.plan import PlannedPromotion, planned_window
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.panel import Window
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.model.training.train import FineTuneSettings, fine_tune
from freshet.model.weights import save_weights, verify_weights
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS

RUN = CliRunner()
DAYS, AHEAD = 90, 7


@pytest.fixture
def weights(tiny_network, tmp_path: Path) -> Path:
    save_weights(tiny_network, tmp_path / "weights", card="")
    return tmp_path / "weights"


def frame(days: int = DAYS) -> pd.DataFrame:
    """Three items by day, with a plan for the last seven days of which nothing was sold yet."""
    rng = np.random.default_rng(0)
    parts = []
    for number, item in enumerate(("shoe", "hat", "coat")):
        promo = (np.arange(days) % 14 < 3).astype(int) * (item != "coat")
        sold = rng.poisson(20 * (number + 1) * (1 + promo)).astype(float)
        sold[days - AHEAD :] = np.nan
        day = pd.date_range("2024-01-01", periods=days)
        price = np.where(promo == 1, 8.0, 10.0)
        parts.append(
            pd.DataFrame(
                {
                    "sku": item,
                    "day": day,
                    "sold": sold,
                    "promo": promo,
                    "price": price,
                    "visits": sold,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


COLUMNS = Columns("sku", "day", "sold", ("promo", "price"), ("visits",))
TABLE = TableSettings(COLUMNS, "D")


def window(horizon: int = AHEAD) -> Window:
    return window_ahead(
        read_panel(frame()[lambda f: f.sold.notna()], TABLE), horizon, COLUMNS, frame()
    )


# The command --------------------------------------------------------------------------------------


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(explain)
    return made


def arguments(table: Path, weights: Path, *others: str) -> list[str]:
    columns = (
        f"--data {table} --item-id sku --time day --target sold --known promo,price --past visits"
    )
    return [*f"{columns} --frequency D --prediction-length 7 --weights {weights}".split(), *others]


def test_it_prints_words_and_draws(tmp_path: Path, weights: Path) -> None:
    frame().to_csv(tmp_path / "sales.csv", index=False)
    others = ("--item", "hat", "--promotion", "2:4:20%", "--plot", f"{tmp_path / 'why.html'}")
    done = RUN.invoke(
        app(), arguments(tmp_path / "sales.csv", weights, *others), catch_exceptions=False
    )
    assert done.exit_code == 0
    assert done.stdout.startswith("hat: about ")
    assert "over the next 7 days" in done.stdout
    assert "20 % off for days 2 to 4 would sell about" in done.stdout
    assert "<svg" in (tmp_path / "why.html").read_text("utf-8")


def test_an_adapter_is_added_to_its_base(
    tiny_network, drawn, tmp_path: Path, weights: Path
) -> None:
    pytest.importorskip("peft", reason="peft comes with freshet[train]")
    settings = FineTuneSettings(steps=3, learning_rate=1e-2, warmup_steps=1, tune="lora")
    tuned = fine_tune(tiny_network, lambda generator: drawn, settings=settings)
    assert tuned.adapter is not None
    added = tmp_path / "added"
    sha256 = verify_weights(weights).sha256
    write_adapter(tuned.adapter, added, base=str(weights), base_sha256=sha256)
    question = Question("hat", AHEAD)
    plain, adapted = (answer(frame(), TABLE, question, folder) for folder in (weights, added))
    assert adapted.as_dict()["full"] != plain.as_dict()["full"]


def test_json_holds_the_numbers(tmp_path: Path, weights: Path) -> None:
    frame().to_csv(tmp_path / "sales.csv", index=False)
    others = ("--item", "hat", "--json", "--steps", "1:2")
    told = json.loads(
        RUN.invoke(
            app(), arguments(tmp_path / "sales.csv", weights, *others), catch_exceptions=False
        ).stdout
    )
    assert told["item_id"] == "hat" and told["steps"] == [1, 2] and told["promotion"] is None
    assert len(told["quantiles"]) == AHEAD
    total = told["empty"][0] + sum(part["units"][0] for part in told["contributions"])
    assert total == pytest.approx(told["full"][0], rel=1e-4)
    assert {part["group"] for part in told["contributions"]} >= {
        "recent",
        "older",
        "signals",
        "promotion",
        "price",
    }


# The table ----------------------------------------------------------------------------------------


def test_the_cutoff_is_where_the_target_ends_and_the_plan_comes_from_either_table(
    weights: Path,
) -> None:
    inside = answer(frame(), TABLE, Question("shoe", AHEAD), weights)
    sold = frame()[lambda f: f.sold.notna()]
    beside = answer(sold, TABLE, Question("shoe", AHEAD, future=frame()), weights)
    assert inside.as_dict() == beside.as_dict()
    assert inside.explanation.cutoff_ms == pd.Timestamp("2024-03-24").value // 10**6
    assert len(inside.explanation.target_T) == DAYS - AHEAD


def test_a_plan_that_is_shorter_than_the_horizon_is_known_as_far_as_it_goes(weights: Path) -> None:
    found = answer(frame(), TABLE, Question("shoe", 12), weights)
    assert found.explanation.quantiles_HQ.shape[0] == 12
    assert found.explanation.cutoff_ms == pd.Timestamp("2024-03-24").value // 10**6


def test_an_unknown_item_is_refused_with_near_names(weights: Path) -> None:
    with pytest.raises(InvalidInputError, match="among the 3 of the table; there are shoe"):
        answer(frame(), TABLE, Question("shoes", AHEAD), weights)
    nothing = frame()
    nothing.loc[nothing.sku == "hat", "sold"] = np.nan
    with pytest.raises(InvalidInputError, match="no target at all"):
        answer(nothing, TABLE, Question("hat", AHEAD), weights)


# The promotion ------------------------------------------------------------------------------------


def test_a_plan_sets_flags_and_prices_of_one_row_in_its_steps() -> None:
    before = window()
    row, steps = before.item_ids.index("hat"), slice(DAYS - AHEAD + 1, DAYS - AHEAD + 4)
    on, off = (
        planned_window(before, row, PlannedPromotion(range(1, 4), 0.25), on=flag).known_NSK
        for flag in (True, False)
    )
    promo, price = (before.known_names.index(name) for name in ("promo", "price"))
    assert (
        on[row, steps, promo].tolist() == [1.0] * 3 and off[row, steps, promo].tolist() == [0.0] * 3
    )
    assert (
        on[row, steps, price].tolist() == [7.5] * 3
        and off[row, steps, price].tolist() == [10.0] * 3
    )
    for changed in (on, off):
        kept = changed.copy()
        kept[row, steps] = before.known_NSK[row, steps]
        np.testing.assert_array_equal(kept, before.known_NSK)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_discounts_are_given_as_their_column_gives_them(scale: float) -> None:
    table = frame()
    table["discount"] = 0.2 * scale * table.promo
    columns = Columns("sku", "day", "sold", ("discount",))
    made = window_ahead(read_panel(table, TableSettings(columns, "D")), AHEAD, columns)
    changed = planned_window(made, 0, PlannedPromotion(range(0, 1), 0.3), on=True)
    assert changed.known_NSK[0, DAYS, 0] == pytest.approx(0.3 * scale)


def test_what_was_never_promoted_is_said_and_a_table_without_promotions_refused(
    weights: Path,
) -> None:
    coat, hat = (
        answer(frame(), TABLE, Question(item, AHEAD, promotion="1:2:0.2"), weights)
        for item in ("coat", "hat")
    )
    assert coat.notes == (ASSOCIATION, NEVER_PROMOTED) and coat.sentences()[-1] == NEVER_PROMOTED
    assert hat.notes == (ASSOCIATION,) and hat.what_if is not None
    assert hat.as_dict()["promotion"]["steps"] == [1, 2]
    bare = TableSettings(Columns("sku", "day", "sold"), "D")
    with pytest.raises(InvalidInputError, match="name such a column with --known"):
        answer(frame(), bare, Question("hat", AHEAD, promotion="1:2:0.2"), weights)


def test_a_promotion_may_be_given_by_dates() -> None:
    days = np.arange(7) * DAY_MS
    assert parse_promotion("1970-01-03:1970-01-04:0.15", days) == PlannedPromotion(
        range(2, 4), 0.15
    )
    assert parse_promotion("1969-12-01:1970-01-01:50%", days) == PlannedPromotion(range(0, 1), 0.5)
    hours = np.arange(48) * HOUR_MS
    assert parse_promotion("1970-01-02:1970-01-02:0.1", hours).steps == range(24, 48)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:2",
        "a:b:0.2",
        "1:2:x",
        "1970-13-01:1970-01-02:0.1",
        "2024-05-01:2024-05-02:0.1",
        "1:9:0.1",
        "0:2:0.1",
        "1:2:1.5",
    ],
)
def test_promotions_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_promotion(text, np.arange(7) * DAY_MS)


@pytest.mark.parametrize("text", ["0:2", "3:2", "1:8", "1", "x:y", "1:2:3"])
def test_steps_outside_the_horizon_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="such as 1:7"):
        parse_steps(text, 7)
