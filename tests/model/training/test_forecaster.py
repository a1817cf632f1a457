"""`Forecaster.fit` gives a tuned copy, by the same way as `freshet train`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import freshet
from freshet.model.tables.table import Columns, TableSettings
from freshet.model.training.forecaster import Forecaster
from freshet.model.training.table import train
from freshet.model.training.train import FineTuneSettings
from freshet.model.weights import save_weights, verify_weights
from freshet.stream.errors import InvalidInputError


@pytest.fixture
def base(tiny_network, tmp_path: Path) -> Path:
    with torch.no_grad():
        for parameter in tiny_network.head.parameters():
            parameter.mul_(0.5)
    save_weights(tiny_network, tmp_path / "base", card="")
    return tmp_path / "base"


def sales() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    promo = (np.arange(120) % 10 < 2).astype(float)
    day = pd.date_range("2024-01-01", periods=120)
    sold = [rng.poisson(10 + 10 * promo).astype(float) for _ in range(4)]
    parts = [
        pd.DataFrame({"unique_id": f"a{item}", "ds": day, "y": sold[item], "promo": promo})
        for item in range(4)
    ]
    return pd.concat(parts, ignore_index=True)


def test_it_learns_what_the_command_learns_and_leaves_the_base_alone(
    base: Path, tmp_path: Path
) -> None:
    forecaster = Forecaster.from_pretrained(base, "cpu", "float32")
    before = {name: value.clone() for name, value in forecaster.network.state_dict().items()}
    fitted = forecaster.fit(sales(), 7, steps=4, learning_rate=0.01, known=["promo"])
    after = forecaster.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())

    table = TableSettings(Columns("unique_id", "ds", "y", ("promo",)), "D")
    settings = FineTuneSettings(
        steps=4, batch_size=128, learning_rate=0.01, warmup_steps=4, check_every_steps=10
    )
    told = train(sales(), table, 7, settings=settings, output=tmp_path / "out", base=base)
    assert told.factor > 0
    stored = verify_weights(tmp_path / "out").network.state_dict()
    for name, value in fitted.network.state_dict().items():
        assert torch.equal(value.to(torch.bfloat16).float(), stored[name])
    assert isinstance(fitted, freshet.Forecaster)
    ahead = fitted.predict(sales(), 7)
    assert not ahead.equals(forecaster.predict(sales(), 7))


def test_what_cannot_be_learnt_from_is_refused(base: Path) -> None:
    forecaster = Forecaster.from_pretrained(base, "cpu", "float32")
    with pytest.raises(InvalidInputError, match="no series is long enough"):
        forecaster.fit(sales().groupby("unique_id").head(9), 7, steps=1)
    with pytest.raises(InvalidInputError, match="prediction_length is 0"):
        forecaster.fit(sales(), 0)


def test_additions_come_back_as_the_weights_that_they_made(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft comes with freshet[train]")
    table = TableSettings(Columns("unique_id", "ds", "y", ("promo",)), "D")
    settings = FineTuneSettings(steps=4, learning_rate=0.01, warmup_steps=1, tune="lora")
    train(sales(), table, 7, settings=settings, output=tmp_path / "out", base=base)
    added = Forecaster.from_pretrained(tmp_path / "out" / "adapter", "cpu", "float32")
    merged = verify_weights(tmp_path / "out").network.state_dict()
    for name, value in added.network.state_dict().items():
        torch.testing.assert_close(value, merged[name], rtol=2**-8, atol=1e-6)


def test_tensorboard_gets_the_loss_of_every_step_and_look(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard comes with freshet[train]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    table = TableSettings(Columns("unique_id", "ds", "y", ("promo",)), "D")
    settings = FineTuneSettings(steps=3, warmup_steps=1, check_every_steps=2, num_seeds=2)
    train(sales(), table, 7, settings=settings, output=tmp_path / "out", base=base)
    events = EventAccumulator(str(tmp_path / "out" / "runs"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    # A look after two steps, and after the last one of each of the two runs.
    assert [event.step for event in events.Scalars("held_out_loss")] == [2, 3, 5, 6]
