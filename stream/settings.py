"""Every setting of every process and its default, one class a section."""

from __future__ import annotations

from datetime import UTC as UTC_ZONE
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from freshet.stream.event_settings import EventSettings, known_zone
from freshet.stream.kafka_settings import KafkaSettings
from freshet.stream.redis_settings import RedisSettings
from freshet.stream.section import Fraction, NotNegative, Positive, Section
from freshet.stream.slots import ALIASES, KNOWN_SLOTS, FlagSlot, NumberSlot
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

UTC = "UTC"


class Resolution(Section):
    """One width of bucket and how many of them are retained."""

    resolution_ms: Positive
    buckets: Positive


class WindowSettings(Section):
    """What lands in a window; changing any of these needs a new generation."""

    out_of_order_ms: NotNegative = 5_000
    allowed_lateness_ms: NotNegative = 900_000
    max_future_ms: NotNegative = 600_000
    resolutions: tuple[Resolution, ...] = (
        Resolution(resolution_ms=SECOND_MS, buckets=900),
        Resolution(resolution_ms=MINUTE_MS, buckets=1_440),
        Resolution(resolution_ms=HOUR_MS, buckets=1_344),
        Resolution(resolution_ms=DAY_MS, buckets=800),
    )
    max_items_per_partition: Positive = 1_000_000
    frontier_rank: Annotated[int, Field(ge=1, le=16)] = Field(
        3,
        description="On topics with producers' own timestamps the frontier is the event time of "
        "this rank, the largest being 1, so that one wrong clock does not carry it away.",
    )
    max_step_ms: Positive = Field(
        HOUR_MS,
        description="There, an event further than this beyond the frontier does not move it, "
        "until nobody says otherwise for a sixth of that time.",
    )
    max_ahead_ms: Positive = Field(
        7 * DAY_MS, description="There, an event further than this beyond it is a dead letter."
    )
    history_before: int | None = Field(
        None,
        description="Where history ends that `freshet history load` brings, and where the frontier "
        "of a new partition begins: RFC 3339, a date (its midnight in UTC) or epoch milliseconds. "
        "Until all of it is loaded nothing is forecast.",
    )
    idle_ms: Positive = Field(
        30_000, description="Wall time at the log's end before a partition is idle."
    )

    @field_validator("history_before", mode="before")
    @classmethod
    def _as_ms(cls, value: object) -> object:
        if isinstance(value, date) and not isinstance(value, datetime):  # As TOML reads it.
            value = value.isoformat()
        moment = value
        if isinstance(value, str) and not value.isdecimal():
            moment = datetime.fromisoformat(value)
            if len(value) == len("2026-01-31"):
                moment = moment.replace(tzinfo=UTC_ZONE)
        if not isinstance(moment, datetime):
            return value
        if moment.tzinfo is None:
            raise ValueError("a time without a zone; write 2026-01-31T00:00:00Z, or a date")
        return round(moment.timestamp() * 1_000)


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_HOURS = r"([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)"
OpenHours = Annotated[str, Field(pattern=rf"^({_HOURS}(, *{_HOURS})*)?$")]
CountryCode = Annotated[str, Field(pattern=r"^[A-Z]{2,3}(-[A-Z0-9]{1,4})?$")]


class CalendarSettings(Section):
    """The shop's own days: when they begin, and which are holidays or have closed hours."""

    time_zone: str = Field(
        UTC,
        description="Whose midnights begin the buckets of a day, such as Europe/Berlin; needs a "
        "new generation.",
    )
    country: CountryCode | Literal[""] = Field(
        "",
        description="Whose public holidays are events, such as DE, or DE-BY of a part of it; "
        "empty: nobody's.",
    )
    country_of_region: dict[str, CountryCode] = Field(
        {}, description="Region = whose public holidays are events there instead."
    )
    opening_hours: dict[Weekday, OpenHours] = Field(
        {},
        description='Weekday = local hours, such as mon = "09:00-12:30, 14:00-18:00"; a day that '
        "is not named is closed, and where none is named nothing is known.",
    )

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        return known_zone(name)


class CovariateSettings(Section):
    """Names of covariates besides those of the slots: event, holiday, closed, free_1 to free_6."""

    flags: dict[str, FlagSlot] = Field(
        {}, description="Name = slot, for shares from 0 to 1 that are 0 where nothing is said."
    )
    numbers: dict[str, NumberSlot] = Field(
        {}, description="Name = slot, for numbers that are unknown where nothing is said."
    )

    @model_validator(mode="after")
    def _names_and_slots_mean_one_thing(self) -> Self:
        for name, slot in (*self.flags.items(), *self.numbers.items()):
            meant = ALIASES.get(name, name)
            if meant in KNOWN_SLOTS and meant != slot:
                raise ValueError(f"{name!r} is a slot itself and cannot mean {slot}")
        both = sorted(self.flags.keys() & self.numbers.keys())
        both += sorted({*self.flags.values()} & {*self.numbers.values()})
        if both:
            raise ValueError(f"{both[0]!r} is both among flags and among numbers")
        return self


class IngestSettings(Section):
    """Limits of the ingest process."""

    batch_max_records: Positive = 50_000
    batch_max_wait_ms: Positive = 50
    max_cached_tiles: Positive = 20_000
    dead_letter_pause_per_s: Positive = Field(
        5_000, description="Above this rate ingest pauses and says so."
    )
    dead_letter_pause_share: Fraction = Field(
        0.5,
        description="Share of dead records at which ingest pauses, once a thousand were read "
        "in 10 s.",
    )
    max_lost_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="Share of a topic's records, those skipped left out, above which lost ones are "
        "warned of, and `--until-end` ends with status 1.",
    )
    http_port: NotNegative = Field(
        0, description="Port of /livez, /readyz and /metrics; 0 picks a free one."
    )


class ServedResolution(Section):
    """Forecasts by steps of one width: how many are published, and by which they are measured."""

    resolution_ms: Positive
    prediction_length: Positive
    season_length: Positive
    score_steps: tuple[int, ...]
    context_length: Positive = 512
    flash_sales_only: bool = Field(
        False, description="Only of items whose flash sale is announced or runs."
    )


BY_DAY = ServedResolution(
    resolution_ms=DAY_MS, prediction_length=35, season_length=7, score_steps=(1, 7, 14, 28)
)
BY_HOUR = ServedResolution(
    resolution_ms=HOUR_MS, prediction_length=48, season_length=168, score_steps=(1, 3, 6, 12, 24)
)
BY_MINUTE = ServedResolution(
    resolution_ms=MINUTE_MS,
    prediction_length=120,
    season_length=60,
    score_steps=(1, 15, 60),
    flash_sales_only=True,
)
ONE_RESOLUTION = ("resolution_ms", "prediction_length", "season_length", "score_steps")
"""Settings of a worker that forecasts by one width of steps alone."""


class WorkerSettings(Section):
    """What is forecast, how, and where."""

    resolutions: tuple[ServedResolution, ...] = Field(
        (BY_MINUTE, BY_HOUR, BY_DAY),
        description="What is forecast; where resolution_ms, prediction_length, season_length or "
        "score_steps is given, that one resolution alone.",
    )
    resolution_ms: Positive = HOUR_MS
    context_length: Positive = 512
    prediction_length: Positive = Field(24, description="Steps published with each forecast.")
    weights: str = Field(
        "", description="Folder of weights; empty is the registry's champion, else the base."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: NotNegative = Field(
        0,
        description="CPU threads of the network; 0 leaves it to PyTorch. Never more than the whole "
        "cores that the process may use, by its affinity and its container's quota.",
    )
    micro_batch: Positive = 256
    poll_ms: Positive = Field(
        200, description="Longest wait at a time for notices of windows, and for side inputs."
    )
    score_steps: tuple[int, ...] = Field(
        (1, 3, 6, 12, 24), description="Steps ahead that are scored."
    )
    season_length: Positive = Field(168, description="Steps of the seasonal naive yardstick.")
    conversion: bool = Field(
        False, description="Forecast units per view too; doubles what a round computes."
    )
    exactly_once: bool = Field(
        True,
        description="Forecasts are committed in transactions; false is for brokers without them, "
        "and a crash may then repeat up to 2,048 forecasts.",
    )
    effects: bool = Field(
        True,
        description="Learn in one process of the shop what all items do alike, and dress forecasts "
        "with it; false: each by what its own windows say.",
    )
    adjust: bool = Field(
        True,
        description="While a segment drifts, serve it by what would have been best lately; false: "
        "always as it is.",
    )
    calibrate: bool = Field(
        True,
        description="Serve quantiles at those levels of the network that would have held what they "
        "say lately, where that is sure to help; false: at its own.",
    )
    max_pending_cutoffs: Positive = Field(
        96,
        description="Cutoffs of a resolution kept while they wait for final buckets: those within "
        "the longest scored step, and what events may be late.",
    )
    http_port: NotNegative = 0

    @model_validator(mode="after")
    def _resolutions_are_told_apart(self) -> Self:
        widths = [one.resolution_ms for one in self.resolutions]
        if len(set(widths)) < len(widths):
            raise ValueError(f"worker.resolutions names a width twice: {widths}")
        single = [name for name in ONE_RESOLUTION if name in self.model_fields_set]
        if single and "resolutions" in self.model_fields_set:
            raise ValueError(
                f"worker.{single[0]} means one resolution alone, worker.resolutions several; "
                "set one of them"
            )
        return self

    @property
    def served(self) -> tuple[ServedResolution, ...]:
        """The table of resolutions, finest first, or the one resolution that was asked for."""
        if not self.model_fields_set.isdisjoint(ONE_RESOLUTION):
            return (
                ServedResolution(
                    resolution_ms=self.resolution_ms,
                    prediction_length=self.prediction_length,
                    season_length=self.season_length,
                    score_steps=self.score_steps,
                    context_length=self.context_length,
                ),
            )
        own = {"context_length": self.context_length}
        if "context_length" not in self.model_fields_set:
            own = {}
        table = [one.model_copy(update=own) for one in self.resolutions]
        return tuple(sorted(table, key=lambda one: one.resolution_ms))


class DriftSettings(Section):
    """When forecasts are said to have drifted; see docs/drift.md for the detectors."""

    watch: bool = Field(
        True,
        description="One process of the shop looks for drift in the scores of all workers; false: "
        "nobody does.",
    )
    segment_by: Literal["category", "region", "sku"] = "category"
    false_alerts: Fraction = Field(
        0.0125,
        description="Chance of any false alert of a calm shop within ten days, all segments "
        "together.",
    )
    min_buckets: Positive = Field(
        3, description="Final buckets of a segment seen before it may alarm."
    )
    clear_buckets: Positive = Field(
        12, description="Quiet buckets after which a segment is stable again."
    )


def _is_hard_to_guess(token: SecretStr) -> SecretStr:
    if 0 < len(token.get_secret_value()) < 16:
        raise ValueError("too short, a guess would find it; use 16 letters or more")
    return token


Token = Annotated[SecretStr, AfterValidator(_is_hard_to_guess)]


class ControlSettings(Section):
    """When an alert leads to training."""

    cooldown_ms: Positive = Field(
        12 * HOUR_MS, description="Clock time between two retrain requests."
    )
    min_new_data_ms: NotNegative = Field(
        6 * HOUR_MS, description="Time after a drift's onset before training is worth it."
    )
    schedule_ms: NotNegative = Field(
        7 * DAY_MS, description="Clock time between scheduled retrains; 0 is never."
    )
    retrain_token: Token = Field(
        SecretStr(""),
        description="Who knows it may POST /v1/retrain at http_port, 16 letters or more; empty "
        "lets nobody.",
    )
    http_port: NotNegative = 0


class LearnSettings(Section):
    """Fine-tuning, the gate and probation."""

    registry: Path = Field(Path("freshet-data/registry"), description="Folder of weights versions.")
    trusted_keys: tuple[str, ...] = Field(
        (),
        description="Public ed25519 keys (PEM files); where there are any, workers and learn use "
        "only versions that one of them signed.",
    )
    signing_key: str = Field(
        "", description="Private ed25519 key (PEM file) that signs what learn registers."
    )
    steps: Annotated[int, Field(ge=1, le=2_000)] = 60
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    replay_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    recent_buckets: Positive = Field(48, description="Newest matured buckets that count as recent.")
    holdout_buckets: Positive = Field(
        12, description="Newest matured buckets kept from training, for the gate."
    )
    trial_days: Positive = Field(
        7, description="Looks at a challenger, a day each; the first day begins with the hold-out."
    )
    gate_margin: Annotated[float, Field(ge=0)] = Field(
        0.01, description="Relative gain in pinball loss that a challenger must show."
    )
    gate_confidence: Fraction = Field(
        0.95,
        description="That no equal challenger is promoted, over all attempts for one alert.",
    )
    probation_buckets: Positive = Field(
        24, description="Final buckets before a promotion is confirmed."
    )
    probation_margin: Annotated[float, Field(ge=0)] = Field(
        0.10, description="Relative loss against the parent at which a promotion is rolled back."
    )
    device: str = "auto"
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Of a GPU's memory training takes no more; the rest is the worker's."
    )
    threads: NotNegative = Field(0, description="As worker.threads, for training.")
    seed: NotNegative = 0
    http_port: NotNegative = 0


class DashboardSettings(Section):
    """Where the page listens."""

    host: str = "127.0.0.1"
    port: NotNegative = Field(8321, description="0 picks a free port.")
    max_points: Positive = Field(2_000, description="Most points sent for one chart.")
    max_subscribers: Positive = Field(200, description="Live streams at a time.")
    max_streams_per_address: Positive = Field(
        20,
        description="Of them from one address; behind a proxy all visitors have the proxy's.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Names under which the page may be asked for, besides localhost and "
        "dashboard.host; * is any name.",
    )
    read_token: Token = Field(
        SecretStr(""),
        description="Who knows it may read, 16 letters or more; empty lets everybody.",
    )
    control_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+.*)?$",
        description="Where control's http_port answers, such as http://control:9103: visitors who "
        "know control.retrain_token may ask for training on the page. Empty: not there.",
    )


class TelemetrySettings(Section):
    """Logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal."
    )
    http_host: str = Field(
        "127.0.0.1",
        description="Where /livez, /readyz and /metrics listen; 0.0.0.0 in a container.",
    )


class Settings(Section):
    """All sections together."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    events: EventSettings = EventSettings()
    windows: WindowSettings = WindowSettings()
    calendar: CalendarSettings = CalendarSettings()
    covariates: CovariateSettings = CovariateSettings()
    ingest: IngestSettings = IngestSettings()
    worker: WorkerSettings = WorkerSettings()
    drift: DriftSettings = DriftSettings()
    control: ControlSettings = ControlSettings()
    learn: LearnSettings = LearnSettings()
    dashboard: DashboardSettings = DashboardSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def served(self) -> tuple[ServedResolution, ...]:
        """What is forecast, finest steps first."""
        widths = {resolution.resolution_ms for resolution in self.windows.resolutions}
        chosen = not self.worker.model_fields_set.isdisjoint(("resolutions", *ONE_RESOLUTION))
        found = self.worker.served
        # A shop that folds fewer widths than usual is served by those.
        return tuple(one for one in found if chosen or one.resolution_ms in widths)

    @property
    def main(self) -> ServedResolution:
        """The one that drift is watched and weights are trained on: the finest of all items."""
        return next(one for one in self.served if not one.flash_sales_only)

    @model_validator(mode="after")
    def _what_is_served_is_folded(self) -> Self:
        widths = [resolution.resolution_ms for resolution in self.windows.resolutions]
        for one in self.served:
            if one.resolution_ms not in widths:
                raise ValueError(
                    f"worker.resolution_ms {one.resolution_ms} is not one of "
                    f"windows.resolutions {widths}"
                )
        if all(one.flash_sales_only for one in self.served):
            raise ValueError("worker.resolutions forecasts flash sales alone; add one of all items")
        return self
