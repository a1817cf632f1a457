"""Pre-training: a killed run continues exactly, reports tell what they should, and it learns."""

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
from freshet.model.training import pretrain
from freshet.model.training.run import SIZES, Pretraining, PretrainSettings
from freshet.model.training.watch import SCALARS, Watch, board
from freshet.model.weights import verify_weights
from freshet.stream.bars import progress_bar
from freshet.stream.errors import InvalidInputError


@pytest.fixture
def run_settings(tmp_path: Path, monkeypatch, tiny_config) -> PretrainSettings:
    sizes = (
        "width",
        "num_layers",
        "num_heads",
        "context_length",
        "prediction_length",
        "step_width",
    )
    tiny = {name: getattr(tiny_config, name) for name in sizes}
    monkeypatch.setitem(SIZES, "edge", tiny)
    return PretrainSettings(
        tmp_path / "run",
        size="edge",
        device="cpu",
        steps=8,
        batch_size=16,
        warmup_steps=2,
        report_every_steps=4,
    )


@pytest.mark.parametrize("size", SIZES)
def test_every_size_that_can_be_asked_for_is_there(size: str, tmp_path: Path) -> None:
    run = Pretraining(PretrainSettings(tmp_path, size=size, device="cpu"))
    asked = SIZES[size]
    assert {name: getattr(run.config, name) for name in asked} == asked


def test_a_killed_run_continues_to_the_same_weights(run_settings) -> None:
    whole = Pretraining(run_settings)
    for _ in range(4):
        whole.advance()
    first = Pretraining(run_settings)
    first.advance()
    first.advance()
    first.save()
    first.advance()  # Lost with the process.
    second = Pretraining(run_settings)
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
    verify_weights(run_settings.output / "weights")
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


def test_another_tracker_is_told_settings_and_scalars(run_settings, monkeypatch) -> None:
    tracking = pytest.importorskip("accelerate.tracking", reason="it comes with freshet[train]")
    told: list[object] = []

    class Tracker:
        def __init__(self, project: str) -> None:
            told.append(project)

        def start(self) -> None:
            told.append("start")

        def store_init_configuration(self, values: dict[str, object]) -> None:
            told.append(values)

        def log(self, values: dict[str, float], step: int) -> None:
            told.append((step, values))

        def finish(self) -> None:
            told.append("finish")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Tracker)
    with board(run_settings.output, ["mlflow"], {"steps": 8, "columns": ("a",)}) as write:
        write({"step": 4.0, "loss": 0.5, "wall_s": 3.0})
    facts = {"steps": 8, "columns": "('a',)"}
    assert told == ["freshet", "start", facts, (4, {"loss": 0.5}), "finish"]
    with pytest.raises(InvalidInputError, match="no tracker 'excel'; choose from mlflow, wandb"):
        board(run_settings.output, ["excel"]).__enter__()


def test_without_tensorboard_nothing_is_written(run_settings, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with board(run_settings.output) as write:
        write({"step": 4.0})
    assert not run_settings.output.exists()


def test_a_terminal_sees_steps_loss_and_skill_and_a_file_nothing() -> None:
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=120)
        with progress_bar(10, "steps", console=console) as bar:
            watch = Watch(bar)
            watch.advanced(10, torch.tensor(0.1234))
            watch.reported(10, "skill 0.250")
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
    asked: list[PretrainSettings] = []
    threads: list[int] = []
    monkeypatch.setattr(pretrain, "pretrain", lambda settings, _shown: asked.append(settings))
    monkeypatch.setattr("freshet.model.threads.use_threads", threads.append)
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
        "minutes": 0.5,
        "seed": 3,
        "device": "cpu",
    }
    assert asked == [PretrainSettings(tmp_path, **wanted)] and threads == [2]
    assert (
        CliRunner().invoke(app, ["pretrain", "-o", str(tmp_path), "--size", "huge"]).exit_code == 2
    )
