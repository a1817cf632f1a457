"""`freshet simulate` and `freshet replay`: events onto the topics, in step with ingest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle
from freshet.stream.kafka import ensure_topics
from freshet.stream.process import Stop, stop_on_signals
from freshet.stream.source.batches import SourceBatch
from freshet.stream.source.outlet import KafkaOutlet
from freshet.stream.source.pump import Progress, Pump, Timer
from freshet.stream.source.report import Complaint, PlanFile
from freshet.stream.telemetry import get_logger
from freshet.stream.units import DAY_MS, MINUTE_MS, SECOND_MS

SLICE_WALL_MS = 100

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tempo:
    """How fast a source goes: history as fast as ingest folds it, then live at a steady speed.

    Attributes:
        live_from_ms: Where history ends.
        speed: Simulated milliseconds per wall millisecond, live.
        seconds: Wall seconds of live time; None goes on until the batches end.
    """

    live_from_ms: int
    speed: float
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise InvalidInputError(f"the speed is {self.speed}; expected more than 0")


def run_source(
    batches: Iterable[SourceBatch],
    settings: Settings,
    tempo: Tempo,
    *,
    stop: Stop,
    plan_file: Path | None = None,
    plan: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Send batches until they end, `stop` is set, or the live time is over; records by topic.

    Blocks. On return everything sent is acknowledged, and the clock is held at its end where Redis
    answers. A broker or a Redis that goes away meanwhile is waited for.

    Args:
        batches: In the order of time.
        settings: Broker, Redis and topics.
        tempo: How fast.
        stop: Ends it early.
        plan_file: A file that will say what is planned and how far it is.
        plan: What is planned, for that file.

    Raises:
        BrokerError: No broker at the start, a topic is missing, records are refused, or were not
            acknowledged when told to stop.
        StoreError: Redis does not answer at the start.
    """
    with closing(KafkaOutlet(settings, stop)) as outlet:
        listeners = [Complaint().update]
        if plan_file is not None:
            facts = {"speed": tempo.speed, **(plan or {})}
            listeners.append(PlanFile(plan_file, facts, outlet.produced).update)

        def tell(progress: Progress) -> None:
            for listen in listeners:
                listen(progress)

        pump = Pump(
            outlet,
            Timer(stop),
            live_from_ms=tempo.live_from_ms,
            speed=tempo.speed,
            live_wall_ms=None if tempo.seconds is None else tempo.seconds * SECOND_MS,
            on_progress=tell,
        )
        pump.run(batches)
    return dict(outlet.produced)


def simulate(
    settings: Settings,
    *,
    seed: int = 1,
    items: int | None = None,
    scenario: str = "drift",
    speed: float = 900.0,
    seconds: float | None = None,
    history_days: int = 28,
    drift_after_ms: int | None = None,
    plan: Path | None = None,
) -> None:
    """Send the simulated shop's events until `seconds` of live time are over, SIGTERM or Ctrl-C.

    Topics that are missing are made, with clocks that fit simulated time.

    Args:
        settings: Broker, Redis and topics.
        seed: The same seed gives the same shop.
        items: Series; None is the default shop.
        scenario: calm, flash_sale or drift.
        speed: Simulated milliseconds per wall millisecond, live.
        seconds: Wall seconds of live time; None never ends.
        history_days: Days sent before live begins.
        drift_after_ms: Simulated time from the start of live to a planted drift; None is 15 % of
            the live time.
        plan: A file that says what is planned and how far it is.
    """
    from freshet.stream.source.simulator import DEFAULT_ITEMS, SimulatedShop, find_scenario
    from freshet.stream.source.simulator.plan import DRIFT_SHARE, TOUR_SECONDS

    _make_topics(settings)
    # The shop places its drift by the length of the live part, so a given drift implies that.
    if drift_after_ms is None:
        live_ms = (seconds or TOUR_SECONDS) * SECOND_MS * speed
    else:
        live_ms = drift_after_ms / DRIFT_SHARE
    shop = SimulatedShop(
        seed,
        DEFAULT_ITEMS if items is None else items,
        find_scenario(scenario),
        backfill_ms=history_days * DAY_MS,
        live_ms=max(1, round(live_ms)),
    )
    facts = {
        "source": "simulate",
        "seed": seed,
        "scenario": scenario,
        "items": len(shop.item_ids),
        **shop.plan.facts(),
    }
    batches = shop.batches(_slice_ms(speed))
    tempo = Tempo(shop.live_start_ms, speed, seconds)
    with stop_on_signals() as stop:
        run_source(batches, settings, tempo, stop=stop, plan_file=plan, plan=facts)


def _make_topics(settings: Settings) -> None:
    """Those that are missing; a person hears of topics whose clock is the broker's."""
    topics = settings.kafka.topics
    for report in ensure_topics(settings, live=False):
        clock = [text for text in report.warnings if text.startswith("message.timestamp.type")]
        if clock and report.name in (topics.orders, topics.clicks):
            hint = (
                "simulated events that are ahead of now become dead letters; "
                "`freshet topics create --simulated` makes topics for them"
            )
            log.warning("topic_clock", topic=report.name, found=clock[0], hint=hint)


def replay(
    settings: Settings,
    file: Path,
    *,
    preset: str | None = None,
    columns: Mapping[str, str] | None = None,
    speed: float = 3_600.0,
    seconds: float | None = None,
    history_days: float = 0,
    plan: Path | None = None,
    style: FileStyle | None = None,
) -> None:
    """Send a file's events, oldest first, until it ends, time is over, SIGTERM or Ctrl-C.

    Args:
        settings: Broker, Redis and topics.
        file: A parquet or CSV file, or a preset's folder.
        preset: See `freshet.stream.source.replay.PRESETS`.
        columns: Instead of a preset, our field -> the file's column.
        speed: How many times as fast as it happened.
        seconds: Wall seconds of live time; None goes on to the file's end.
        history_days: Days of the file sent at once before live begins.
        plan: A file that says what is planned and how far it is.
        style: How the file is written, where it does not tell.
    """
    from freshet.stream.source.replay import open_replay

    source = open_replay(file, preset=preset, mapping=columns or None, style=style)
    for reason, count in source.skipped.items():
        log.info("rows_skipped", reason=reason, rows=count)
    live_from_ms = source.start_ms + round(history_days * DAY_MS)
    facts = {
        "source": "replay",
        "preset": source.name,
        "start_ms": source.start_ms,
        "end_ms": source.end_ms,
        "live_start_ms": min(live_from_ms, source.end_ms),
        "rows": len(source.rows),
        "skipped": source.skipped,
    }
    batches = source.batches(_slice_ms(speed))
    tempo = Tempo(live_from_ms, speed, seconds)
    with stop_on_signals() as stop:
        run_source(batches, settings, tempo, stop=stop, plan_file=plan, plan=facts)


def _slice_ms(speed: float) -> int:
    """Simulated time in one batch: about a tenth of a second on the wall.

    >>> _slice_ms(900.0), _slice_ms(1.0)
    (90000, 1000)
    """
    return round(min(max(speed * SLICE_WALL_MS, SECOND_MS), 15 * MINUTE_MS))
