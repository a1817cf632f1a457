"""Pre-training on the synthetic mixture: resumable, deterministic by seed, on any device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.training.run import Pretraining, PretrainSettings, learning_rate_at
from freshet.model.training.skill import held_out, skill
from freshet.model.training.together import team
from freshet.model.weights import save_weights


def reports(
    settings: PretrainSettings, advanced: Callable[[int, Tensor], None] = lambda step, loss: None
) -> Iterator[dict[str, float]]:
    """Train to the end or to the time limit, yielding a report every so many steps.

    Durable effects: a checkpoint every `checkpoint_every_s` seconds and at the end, where the
    averaged weights are written too; a killed run repeats what came after the last checkpoint and
    arrives at the same weights.

    Args:
        advanced: called after every step with the steps made so far and the step's loss; asking for
            its number makes a GPU wait.
    """
    run = Pretraining(settings)
    run.restore()
    batches = held_out(run.config, seed=settings.seed, device=run.device)
    started = saved = team().agreed(time.monotonic(), run.device)
    wall_before, losses = run.wall_s, []
    while run.step < settings.steps:
        losses.append(run.advance())
        advanced(run.step, losses[-1])
        now = team().agreed(time.monotonic(), run.device)
        run.wall_s = wall_before + now - started
        if now - saved > settings.checkpoint_every_s:
            run.save()
            saved = now
        if run.step % settings.report_every_steps == 0 or run.step == settings.steps:
            yield _report(run, losses, batches)
            losses = []
        if settings.minutes is not None and now - started > 60.0 * settings.minutes:
            break
    run.save()
    if team().first:
        save_weights(run.averaged(), settings.output / "weights", card=_card(run))


def _report(
    run: Pretraining, losses: list[Tensor], batches: list[tuple[Batch, Tensor]]
) -> dict[str, float]:
    report = {
        "step": float(run.step),
        "loss": float(torch.stack(losses).mean()),
        "windows": float(run.step * run.settings.batch_size),
        "wall_s": round(run.wall_s, 1),
        "learning_rate": learning_rate_at(run.step, run.settings),
    }
    return report | skill(run.averaged(), batches)


def _card(run: Pretraining) -> str:
    facts = run.settings.as_dict()
    facts.pop("output")
    lines = [
        "# Weights pre-trained on synthetic series",
        "",
        f"{run.step} steps of {run.settings.batch_size} windows; no real data. Settings:",
        "",
        *(f"* {name}: {value}" for name, value in facts.items()),
        "",
    ]
    return "\n".join(lines)


def pretrain(settings: PretrainSettings, trackers: Sequence[str] = ()) -> None:
    """Train, resuming from the folder's checkpoint; print each report and append it to `log.jsonl`.

    A terminal gets a progress bar on standard error, and TensorBoard its scalars in the folder,
    where it is installed; so do the trackers of `freshet.model.training.watch` that are named.
    Of several processes the first one speaks and writes.
    """
    if not team().first:
        for _ in reports(settings):
            pass
        return
    from freshet.model.training.watch import Watch, board
    from freshet.stream.bars import progress_bar

    settings.output.mkdir(parents=True, exist_ok=True)
    with (
        (settings.output / "log.jsonl").open("a") as log,
        board(settings.output, trackers, settings.as_dict()) as scalars,
        progress_bar(settings.steps, "steps") as bar,
    ):
        watch = Watch(bar)
        for report in reports(settings, watch.advanced):
            line = json.dumps({name: round(value, 6) for name, value in report.items()})
            log.write(line + "\n")
            log.flush()
            scalars(report)
            watch.reported(int(report["step"]), f"skill {report['held_out_skill']:.3f}")
            print(line, flush=True)
