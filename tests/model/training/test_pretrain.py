"""Pre-training: the data are sane, a killed run continues exactly, and it learns."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.model.network import FreshetConfig
from freshet.model.synthetic import generic, mixture
from freshet.model.synthetic.retail import retail
from freshet.model.synthetic.seeded import Seeded
from freshet.model.training import pretrain
from freshet.model.training.watch import SCALARS, board, progress_bar
from freshet.model.weights import verify_weights
from freshet.stream.units import HOUR_MS


@pytest.fixture
def run_settings(tmp_path: Path, monkeypatch, tiny_config) -> pretrain.PretrainSettings:
    monkeypatch.setattr(FreshetConfig, "edge", classmethod(lambda cls: tiny_config))
    return pretrain.PretrainSettings(
        tmp_path / "run",
        size="edge",
        device="cpu",
        steps=8,
        batch_size=16,
        warmup_steps=2,
        report_every_steps=4,
    )


@pytest.mark.parametrize("seed", range(6))
def test_every_batch_is_valid_and_depends_on_the_seed_alone(seed: int) -> None:
    def draw() -> tuple[object, torch.Tensor]:
        return mixture.sample(
            torch.Generator().manual_seed(seed), 32, context_length=128, prediction_length=32
        )

    (batch, actual), (_, again) = draw(), draw()
    batch.validate()
    assert torch.equal(torch.nan_to_num(actual), torch.nan_to_num(again))
    assert actual.nan_to_num().min() >= 0
    assert actual.isnan().float().mean() < 0.3


def test_shops_cover_levels_from_sparse_to_brisk_and_stock_outs_are_missing() -> None:
    generator = torch.Generator().manual_seed(0)
    series = retail(Seeded(generator, 300), torch.zeros(300, dtype=torch.int64), 336, HOUR_MS)
    mean = series.target_BS.nanmean(1)
    assert (mean < 0.3).float().mean() > 0.1
    assert (mean > 30).float().mean() > 0.1
    assert bool((series.target_BS.isnan() == (series.past_BSP[..., 4] == 0)).all())


def test_promotions_that_are_known_raise_the_sales_and_views_lead() -> None:
    generator = torch.Generator().manual_seed(1)
    series = retail(Seeded(generator, 600), torch.zeros(600, dtype=torch.int64), 336, HOUR_MS)
    on = series.known_BSK[..., 1] > 0
    target = series.target_BS.nan_to_num()
    rows = on.any(1) & (~on).any(1) & (target.mean(1) > 1)
    lift = (target * on).sum(1) / on.sum(1) / ((target * ~on).sum(1) / (~on).sum(1))
    assert lift[rows].median() > 1.2


@pytest.mark.parametrize(
    ("make", "share"), mixture.GENERIC, ids=lambda value: getattr(value, "__name__", "")
)
def test_generic_series_are_finite_varied_and_not_negative(make, share) -> None:
    values = make(Seeded(torch.Generator().manual_seed(3), 64), 200, HOUR_MS)
    assert values.shape == (64, 200)
    assert bool(torch.isfinite(values).all())
    assert values.min() >= 0
    assert (values.std(1) > 0).float().mean() > 0.7
    assert 0 < share < 1


def test_gamma_draws_have_the_right_mean_and_variance() -> None:
    for shape in (0.5, 4.0):
        drawn = Seeded(torch.Generator().manual_seed(0), 2000).gamma(torch.full((2000, 100), shape))
        assert drawn.mean().item() == pytest.approx(shape, rel=0.02)
        assert drawn.var().item() == pytest.approx(shape, rel=0.05)


def test_a_season_of_generic_series_repeats() -> None:
    period_B = torch.full((4,), 12.0)
    wave = generic.wave(Seeded(torch.Generator().manual_seed(0), 4), 48, period_B)
    torch.testing.assert_close(wave[:, :12], wave[:, 12:24], rtol=1e-3, atol=1e-3)


def test_a_killed_run_continues_to_the_same_weights(run_settings) -> None:
    whole = pretrain.Pretraining(run_settings)
    for _ in range(4):
        whole.advance()
    first = pretrain.Pretraining(run_settings)
    first.advance()
    first.advance()
    first.save()
    first.advance()  # Lost with the process.
    second = pretrain.Pretraining(run_settings)
    assert second.restore()
    second.advance()
    second.advance()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name
    for name, value in whole.average.items():
        assert torch.equal(second.average[name], value), name


def test_it_reports_learns_and_stops_at_the_wall_limit(run_settings) -> None:
    pretrain.pretrain(run_settings)
    log = [
        json.loads(line) for line in (run_settings.output / "log.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in log] == [4, 8]
    assert log[1]["held_out_loss"] < log[0]["held_out_loss"]
    assert math.isfinite(log[1]["held_out_skill"])
    assert verify_weights(run_settings.output / "weights").golden_error < 1e-5
    stopped = replace(run_settings, output=run_settings.output / "short", minutes=0.0)
    assert list(pretrain.reports(stopped)) == []
    assert json.loads((stopped.output / "state.json").read_text())["step"] == 1


def test_tensorboard_gets_the_scalars_of_each_report(run_settings) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard comes with freshet[train]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with board(run_settings.output) as write:
        for step in (4, 8):
            write(
                {
                    "step": step,
                    "loss": 0.5 / step,
                    "held_out_loss": 0.2,
                    "held_out_skill": 0.1,
                    "learning_rate": 1e-3,
                }
            )
    events = EventAccumulator(str(run_settings.output))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(SCALARS)
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (4, 0.125),
        (8, 0.0625),
    ]


def test_without_tensorboard_nothing_is_written(run_settings, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with board(run_settings.output) as write:
        write({"step": 4.0})
    assert not run_settings.output.exists()


def test_a_terminal_sees_steps_loss_and_skill_and_a_file_nothing() -> None:
    for terminal in (True, False):
        screen = io.StringIO()
        with progress_bar(10, Console(file=screen, force_terminal=terminal, width=120)) as bar:
            bar.advanced(10, torch.tensor(0.1234))
            bar.reported({"held_out_skill": 0.25})
        shown = screen.getvalue()
        assert [word in shown for word in ("10/10", "loss 0.1234", "held-out skill 0.250")] == [
            terminal
        ] * 3
        assert bool(shown.strip()) == terminal


def test_every_step_is_told_to_whoever_watches(run_settings) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    found = list(pretrain.reports(run_settings, lambda step, loss: seen.append((step, loss))))
    assert [step for step, _ in seen] == list(range(1, 9))
    assert found[0]["loss"] == pytest.approx(float(sum(loss for _, loss in seen[:4])) / 4)


def test_the_command_passes_its_options_on(tmp_path: Path, monkeypatch) -> None:
    asked: list[pretrain.PretrainSettings] = []
    monkeypatch.setattr(pretrain, "pretrain", asked.append)
    options = (
        "--size edge --steps 7 --batch-size 16 --threads 2 --minutes 0.5 --seed 3 --device cpu"
    )
    done = CliRunner().invoke(
        app, ["pretrain", "-o", str(tmp_path), *options.split()], catch_exceptions=False
    )
    assert done.exit_code == 0
    wanted = {
        "size": "edge",
        "steps": 7,
        "batch_size": 16,
        "threads": 2,
        "minutes": 0.5,
        "seed": 3,
        "device": "cpu",
    }
    assert asked == [pretrain.PretrainSettings(tmp_path, **wanted)]
    assert (
        CliRunner().invoke(app, ["pretrain", "-o", str(tmp_path), "--size", "huge"]).exit_code == 2
    )
