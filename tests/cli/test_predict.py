"""`freshet predict` as people call it, and README's lines as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.model.predict.frame import Forecaster
from freshet.stream.errors import InvalidInputError
from tests.model.field.conftest import ahead_of, promoted

RUN = CliRunner()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two series, one of them called 007, and what is known ahead."""
    both = pd.concat([promoted(item="007"), promoted(item="a")])
    both.to_csv(tmp_path / "sales.csv", index=False)
    ahead_of(both).to_csv(tmp_path / "ahead.csv", index=False)
    return tmp_path


def call(*arguments: object):
    return RUN.invoke(app, ["predict", *map(str, arguments)], catch_exceptions=False)


def test_a_file_becomes_tables_and_a_picture(files: Path) -> None:
    outputs = [files / name for name in ("f.parquet", "f.csv", "f.png", "f.svg")]
    named = [part for path in outputs for part in ("-o", path)]
    done = call(files / "sales.csv", "--future", files / "ahead.csv", *named)
    assert done.exit_code == 0 and done.stdout.startswith("14 rows of 2 series in ")
    table = pd.read_parquet(outputs[0])
    assert table.item_id.tolist() == ["007"] * 7 + ["a"] * 7
    assert (table.predictions > 70.0).all() and (table.status == "ok").all()
    text = pd.read_csv(outputs[1], dtype={"item_id": str}, parse_dates=["timestamp"])
    pd.testing.assert_frame_equal(text, table, check_dtype=False)
    assert outputs[2].read_bytes().startswith(b"\x89PNG") and "<svg" in outputs[3].read_text()


def test_the_command_line_forecasts_what_python_does(files: Path) -> None:
    options = ("--prediction-length", 3, "--quantile-levels", "0.001,0.5", "--missing", "zero")
    done = call(files / "sales.csv", *options)
    lines = done.stdout.splitlines()
    assert lines[0] == "item_id,timestamp,predictions,0.001,0.5,mean,status" and len(lines) == 7
    frame = pd.concat([promoted(item="007"), promoted(item="a")])
    found = Forecaster.from_pretrained().predict(
        frame, 3, quantile_levels=[0.001, 0.5], missing="zero"
    )
    printed = [float(line.split(",")[2]) for line in lines[1:]]
    np.testing.assert_allclose(printed, found.predictions)


@pytest.mark.parametrize("command", ["predict", "backtest"])
def test_an_engine_computes_and_changes_nothing(files: Path, monkeypatch, command: str) -> None:
    from fugue import NativeExecutionEngine

    asked = []

    def engine_of(engine: object) -> NativeExecutionEngine:
        asked.append(engine)
        return NativeExecutionEngine()

    monkeypatch.setattr("freshet.model.predict.cluster._engine_of", engine_of)
    named = ["--item-id", "item_id", "--time", "timestamp", "--target", "target"]
    words = {
        "predict": ["predict", str(files / "sales.csv"), "-o"],
        "backtest": ["backtest", "--data", str(files / "sales.csv"), *named, "--forecasts"],
    }[command]
    if command == "backtest":
        words[1:1] = ["--models", "freshet"]
    made = []
    for name, others in (("here", []), ("there", ["--engine", "dask"])):
        path = files / f"{name}.parquet"
        done = RUN.invoke(
            app, [*words, str(path), "--prediction-length", "3", *others], catch_exceptions=False
        )
        assert done.exit_code == 0
        made.append(pd.read_parquet(path))
    assert asked == ["dask"]
    pd.testing.assert_frame_equal(made[1], made[0])


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["-o", "f.gif"], "neither a table nor a picture"),
        (["-o", "nowhere/f.csv"], "nowhere is no folder"),
        (["--item-id", "sku"], "no column 'sku'"),
        (["--quantile-levels", "0.5,0.1"], "between 0 and 1, rising"),
    ],
)
def test_what_cannot_work_is_said_and_nothing_written(
    files: Path, others: list[str], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        call(files / "sales.csv", "--prediction-length", 3, *others)


def test_the_lines_of_python_in_the_readme_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    names: dict[str, object] = {}
    exec(block, names)
    found = names["forecasts"]
    assert isinstance(found, pd.DataFrame) and set(found.status) == {"ok"}
    assert (tmp_path / "forecasts.png").read_bytes().startswith(b"\x89PNG")
