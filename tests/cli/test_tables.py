"""`freshet data prepare` and `freshet backtest` as people call them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.model.backtest import compare as contest
from freshet.stream.errors import InvalidInputError
from tests.model.backtest.contestants import make
from tests.model.tables.windows import long_table

RUN = CliRunner()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table with one short series in a folder of its own; models are the test's own."""
    monkeypatch.setattr(contest, "make", make)
    monkeypatch.setattr(contest, "names", lambda: ("seasonal_naive", "constant"))
    frame = long_table(items=3, days=40)
    frame[(frame.sku != "sku2") | (frame.day >= "2024-02-01")].to_csv(
        tmp_path / "sales.csv", index=False
    )
    return tmp_path / "sales.csv"


def arguments(table: Path, *others: str) -> list[str]:
    columns = (
        f"--data {table} --item-id sku --time day --target sold --known promo,colour --past visits"
    )
    return [*f"backtest {columns} --frequency D --prediction-length 5 --windows 2".split(), *others]


def test_weights_of_a_folder_are_those_of_the_network(table: Path, tmp_path: Path) -> None:
    others = ("--models", "freshet,seasonal_naive", "--weights", str(tmp_path / "none"))
    # The test's own models know nothing of freshet, and so say what they were asked for.
    with pytest.raises(InvalidInputError, match=f"no model 'freshet:{tmp_path / 'none'}'"):
        RUN.invoke(app, arguments(table, *others), catch_exceptions=False)


def test_a_comparison_prints_a_table_and_writes_what_is_asked_for(table: Path) -> None:
    folder = table.parent
    files = [
        "--json",
        f"{folder / 'r.json'}",
        "--forecasts",
        f"{folder / 'f.parquet'}",
        "--plot",
        f"{folder / 'p.html'}",
    ]
    done = RUN.invoke(app, arguments(table, *files), catch_exceptions=False)
    assert done.exit_code == 0
    assert "seasonal_naive" in done.stdout and "constant" in done.stdout and "WQL" in done.stdout
    assert "1 of 3 series have 10 steps or fewer" in done.stderr
    models = json.loads((folder / "r.json").read_text())["models"]
    assert [row["model"] for row in models] == ["seasonal_naive", "constant"]
    assert [window["series"] for window in models[0]["windows"]] == [2, 3]
    assert len(pd.read_parquet(folder / "f.parquet")) == 2 * 5 * 5
    assert "<svg" in (folder / "p.html").read_text()
    again = RUN.invoke(app, arguments(table, *files), catch_exceptions=False)
    assert "4 forecasts taken from" in again.stderr


def test_a_failed_model_is_said_and_the_exit_status_is_1(table: Path) -> None:
    done = RUN.invoke(
        app, arguments(table, "--models", "seasonal_naive,raises"), catch_exceptions=False
    )
    assert done.exit_code == 1
    assert "raises failed in 1 of 2 windows: RuntimeError: no forecast today" in done.stdout
    assert "0." in next(line for line in done.stdout.splitlines() if "seasonal_naive" in line)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--models", "typo"], "no model 'typo'"),
        (["--windows", "9"], "no series is longer than the 45 steps"),
        (["--static", "brand"], "no column 'brand'; its columns are sku, day, promo"),
        (["--frequency", "fortnight"], "'fortnight' is no frequency"),
        (["--plot", "p.gif"], "no kind of picture"),
        (["--json", "nowhere/r.json"], "nowhere is no folder"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_computed(
    table: Path, others: list[str], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        RUN.invoke(app, arguments(table, *others), catch_exceptions=False)


def test_a_known_data_set_is_prepared_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"month": ["1998-01"], "part_1": [np.nan]}).to_parquet(
        tmp_path / "carparts_monthly.parquet"
    )
    out = tmp_path / "table.parquet"
    done = RUN.invoke(
        app, ["data", "prepare", "car_parts", "-o", str(out), "--from", str(tmp_path)]
    )
    assert (done.exit_code, done.stdout) == (0, f"1 rows in {out}\n")
    out.unlink()
    monkeypatch.setenv("FRESHET_DATA", str(tmp_path))
    assert RUN.invoke(app, ["data", "prepare", "car_parts", "-o", str(out)]).exit_code == 0
    assert pd.read_parquet(out).columns.tolist() == ["id", "timestamp", "target"]
