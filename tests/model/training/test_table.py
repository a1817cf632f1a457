"""`freshet train` and `freshet pretrain` as people call them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.model.predict.frame import Forecaster
from freshet.model.tables.table import Columns, TableSettings
from freshet.model.training import table as train_table
from freshet.model.training.table import train
from freshet.model.training.train import FineTuneSettings
from freshet.model.weights import save_weights, verify_weights
from freshet.stream.errors import InvalidInputError

RUN = CliRunner()
TABLE = TableSettings(Columns("sku", "day", "sold", ("promo",)), "D")
SETTINGS = FineTuneSettings(steps=4, learning_rate=2e-3, warmup_steps=1, check_every_steps=2)


@pytest.fixture
def base(tiny_network, tmp_path: Path) -> Path:
    # The tiny network is far from any good; halfway to silence there is something left to learn,
    # quickly.
    with torch.no_grad():
        for parameter in tiny_network.head.parameters():
            parameter.mul_(0.5)
    save_weights(tiny_network, tmp_path / "base", card="")
    return tmp_path / "base"


def sales(days: int = 120, items: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    promo = (np.arange(days) % 10 < 2).astype(int)
    day = pd.date_range("2024-01-01", periods=days)
    parts = [
        pd.DataFrame(
            {
                "sku": f"sku{item}",
                "day": day,
                "sold": rng.poisson(10 + 10 * promo).astype(float),
                "promo": promo,
            }
        )
        for item in range(items)
    ]
    return pd.concat(parts, ignore_index=True)


def arguments(table: Path, base: Path, *others: str) -> list[str]:
    columns = f"--data {table} --item-id sku --time day --target sold --known promo --frequency D"
    return [*f"train {columns} --prediction-length 7 --steps 4 --base {base}".split(), *others]


# The command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["full", "top", "lora"])
def test_it_writes_weights_that_load_and_are_better_on_the_hold_out(
    tmp_path: Path, base: Path, tune: str
) -> None:
    if tune == "lora":
        pytest.importorskip("peft", reason="peft comes with freshet[train]")
    sales().to_csv(tmp_path / "sales.csv", index=False)
    output = tmp_path / "tuned"
    others = ("--tune", tune, "--learning-rate", "0.01", "-o", str(output), "--json")
    done = RUN.invoke(app, arguments(tmp_path / "sales.csv", base, *others), catch_exceptions=False)
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["factor"] > 0 and told["after"] < told["before"]
    assert told["before"] == told["held_out"]["0"]
    assert told["after"] == pytest.approx(told["held_out"][f"{told['factor']:g}"], rel=0.02)
    verified = verify_weights(output, told["sha256"])
    moved = {
        name.split(".")[0]
        for (name, value), old in zip(
            verified.network.named_parameters(),
            verify_weights(base).network.parameters(),
            strict=True,
        )
        if not torch.equal(value, old)
    }
    assert "head" in moved
    assert tune != "top" or moved <= {"layers", "final_norm", "head"}
    found = Forecaster.from_pretrained(output).predict(
        sales(), 7, item_id="sku", timestamp="day", target="sold", known=["promo"]
    )
    assert len(found) == 28


def test_it_tells_what_it_did_and_the_card_says_from_what(tmp_path: Path, base: Path) -> None:
    sales().to_csv(tmp_path / "sales.csv", index=False)
    output = tmp_path / "tuned"
    others = ("--seeds", "2", "-o", str(output))
    done = RUN.invoke(app, arguments(tmp_path / "sales.csv", base, *others), catch_exceptions=False)
    assert "8 steps on 4 series" in done.stdout
    assert "hold-out loss" in done.stdout and "factor" in done.stdout
    card = (output / "README.md").read_text()
    for fact in (
        "data: sales.csv",
        "num_seeds: 2",
        "tune: full",
        "known: promo",
        "frequency: D",
        "(taken)",
    ):
        assert fact in card
    assert str(tmp_path) not in card
    assert card.count("\n| 0") + card.count("\n| 1") == 5


# The table ----------------------------------------------------------------------------------------


def test_rows_that_lie_ahead_teach_nothing(tmp_path: Path, base: Path) -> None:
    table = sales()
    plan = table.copy()
    plan["day"] += pd.Timedelta(days=120)
    both = pd.concat([table, plan[plan.day < "2024-05-08"].assign(sold=np.nan)])
    alone, planned = (
        train(frame, TABLE, 7, settings=SETTINGS, output=tmp_path / name, base=base)
        for frame, name in ((table, "alone"), (both, "planned"))
    )
    assert alone.before == planned.before and alone.sha256 == planned.sha256


def test_what_does_not_help_is_not_taken(tmp_path: Path, base: Path) -> None:
    wild = replace(SETTINGS, steps=2, learning_rate=3.0)
    found = train(sales(), TABLE, 7, settings=wild, output=tmp_path / "wild", base=base)
    assert found.factor == 0.0 and found.before == min(found.held_out.values())
    assert "base weights" in found.sentences()[-1]
    assert found.sha256 == verify_weights(base).sha256


def test_the_loss_told_is_that_of_the_weights_as_written(
    tmp_path: Path, base: Path, monkeypatch
) -> None:
    def write_the_base(network, directory: Path, *, card: str) -> str:
        return save_weights(verify_weights(base).network, directory, card=card)

    monkeypatch.setattr(train_table, "save_weights", write_the_base)
    found = train(sales(), TABLE, 7, settings=SETTINGS, output=tmp_path / "tuned", base=base)
    assert min(found.held_out.values()) < found.before
    assert found.after == pytest.approx(found.before)


@pytest.mark.parametrize("days", [5, 8])
def test_tables_too_short_to_learn_from_are_refused(tmp_path: Path, base: Path, days: int) -> None:
    with pytest.raises(InvalidInputError, match="no series is long enough"):
        train(sales(days), TABLE, 7, settings=SETTINGS, output=tmp_path / "tuned", base=base)
    with pytest.raises(InvalidInputError, match="no row has a value in the target column"):
        train(
            sales().assign(sold=np.nan),
            TABLE,
            7,
            settings=SETTINGS,
            output=tmp_path / "tuned",
            base=base,
        )
    assert not (tmp_path / "tuned").exists()
