"""Every record freshet reads or writes, as typed structs: the wire format in code.

Times end in `_ms` and are epoch milliseconds UTC. Input events may carry RFC 3339 text instead; the
codec turns it into milliseconds. Unknown fields are ignored on input, so that producers may add
theirs.

Every text, list and number has a bound, so that one record cannot fill a process or stop it. What
is out of bounds is not a record. `happened` names the times of a record that cannot lie ahead of
the shop's clock, `planned` those that may, by ten years; `freshet.stream.codec.decode` looks.
Events (orders, clicks) have bounds of their own, in `stream/events/limits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

ClickKind = Literal["view", "cart", "favourite", "checkout"]
Time = int | str

LAST_MS = 253_402_300_799_999  # the year 9999
Ms = Annotated[int, Meta(ge=0, le=LAST_MS)]
Moment = Ms | Annotated[str, Meta(max_length=64)]
Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Amount = Annotated[float, Meta(ge=-1e15, le=1e15)]
Name = Annotated[str, Meta(max_length=1_024)]
"""An id, or the name of something."""
Text = Annotated[str, Meta(max_length=16_384)]
"""What a person reads."""
Names = Annotated[list[Name], Meta(max_length=10_000)]
Quantiles = Annotated[
    list[Annotated[list[float], Meta(max_length=256)]],
    Meta(max_length=4_096),
]
"""A list of levels for each step."""

CHANNELS = ("units", "revenue", "orders", "returns", "views", "carts", "favourites", "checkouts")
CHANNEL_OF_CLICK: dict[ClickKind, str] = {
    "view": "views",
    "cart": "carts",
    "favourite": "favourites",
    "checkout": "checkouts",
}
UNIT_SCALES = {"units": 1_000, "revenue": 10_000, "orders": 1, "returns": 1_000}
WIRE_LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A value on a topic; immutable, compared by value."""

    happened: ClassVar[tuple[str, ...]] = ()
    planned: ClassVar[tuple[str, ...]] = ()


# Events in ----------------------------------------------------------------------------------------


class OrderLine(Record, frozen=True, kw_only=True):
    """One line of an order; a negative quantity is a return."""

    sku: str
    quantity: float
    unit_price: float
    region: str | None = None


class OrderEvent(Record, frozen=True, kw_only=True):
    """`freshet.orders.v1`: one line (`sku`, `quantity`, `unit_price`) or an order (`lines`)."""

    event_id: str
    event_time: Time
    order_id: str | None = None
    region: str | None = None
    sku: str | None = None
    quantity: float | None = None
    unit_price: float | None = None
    lines: list[OrderLine] | None = None


class ClickEvent(Record, frozen=True, kw_only=True):
    """`freshet.clicks.v1`: one visitor did one thing to one item."""

    event_id: str
    event_time: Time
    sku: str
    kind: ClickKind
    session_id: str | None = None
    region: str | None = None


# Of the shop's tables: a record is known from `announced_at` on, else from its Kafka timestamp.


class CatalogEntry(Record, frozen=True, kw_only=True):
    """`freshet.catalog.v1`, key sku, compacted: what an item is and costs from then on."""

    happened = ("announced_at",)
    planned = ("launched_at",)

    sku: Name
    title: Text = ""
    category: Name = ""
    brand: Name = ""
    attributes: Annotated[dict[Name, Text], Meta(max_length=256)] = {}
    unit_price: Amount | None = None
    launched_at: Moment | None = None
    announced_at: Moment | None = None


class Promotion(Record, frozen=True, kw_only=True):
    """`freshet.promotions.v1`, key promotion_id, compacted: a price cut known in advance.

    It holds in [starts_at, ends_at).
    """

    happened = ("announced_at",)
    planned = ("starts_at", "ends_at")

    promotion_id: Name
    starts_at: Moment
    ends_at: Moment
    discount: float
    kind: Name = "promotion"
    sku: Name | None = None
    category: Name | None = None
    announced_at: Moment | None = None

    @property
    def flash_sale(self) -> bool:
        """Whether the page shows it as a flash sale and an alert is raised while it runs.

        >>> times = {"starts_at": 0, "ends_at": 1, "discount": 0.3}
        >>> [Promotion(promotion_id="p", kind=kind, **times).flash_sale
        ...  for kind in ("flash_sale", "flash", "promotion")]
        [True, True, False]
        """
        return "flash" in self.kind


class InventoryLevel(Record, frozen=True, kw_only=True):
    """`freshet.inventory.v1`, key sku + region, compacted: units on hand as of a time."""

    happened = ("as_of", "announced_at")

    sku: Name
    on_hand: Amount
    as_of: Moment
    region: Name | None = None
    announced_at: Moment | None = None


Narrowing = Annotated[str, Meta(min_length=1, max_length=1_024)]


class CovariateScope(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Whom a covariate is about: items that have all of the named fields; none named means all.

    Unknown fields are refused: passed over, they would widen the scope.
    """

    sku: Narrowing | None = None
    category: Narrowing | None = None
    region: Narrowing | None = None


class Covariate(Record, frozen=True, kw_only=True):
    """`freshet.covariates.v1`, key covariate_id, compacted: something known in advance.

    It holds in [starts_at, ends_at) for the items of its scope. `name` is that of a slot (`event`
    or `holiday`, `closed`, `free_1` to `free_6`), or one that `[covariates]` maps to a slot.
    """

    happened = ("announced_at",)
    planned = ("starts_at", "ends_at")

    covariate_id: Name
    name: Name
    starts_at: Moment
    ends_at: Moment
    value: Amount = 1.0
    scope: CovariateScope = CovariateScope()
    announced_at: Moment | None = None


# Between the parts --------------------------------------------------------------------------------


class WindowsAdvanced(Record, frozen=True, kw_only=True):
    """`freshet.windows.v1`: Redis now holds this partition up to `offset`.

    A hint, one to each shard that was touched.
    """

    topic: Name
    partition: Count
    epoch: Count
    offset: Count
    frontier_ms: Ms


class Cumulative(Record, frozen=True, kw_only=True):
    """Quantiles of the sum over the first `steps` steps, for stock-out and replenishment."""

    steps: Annotated[list[Count], Meta(max_length=4_096)]
    quantiles: Quantiles


class Adjustments(Record, frozen=True, kw_only=True):
    """What was done to the network's quantiles before publishing.

    Hours say which forecast by the day (`sums_from`) their sums over whole days are taken from. A
    young item's days say which context of hours (`mixed_with`, its sha256) their first days are
    mixed with.

    While a segment drifts, its contexts may begin at `begins_at_ms`: with `moved`, what was sold
    before it was multiplied by `exp(moved[bucket number modulo their count])`, without it was
    hidden.

    `calibrated[step]` is 0 where the quantiles are the network's own; n where the n-th map of the
    decision `calibration_id` says at which level of the network each of them was read.
    """

    level_factor: float = 1.0
    calibration_id: Name | None = None
    sums_from: Name | None = None
    mixed_with: Name | None = None
    begins_at_ms: Ms | None = None
    moved: Annotated[list[float], Meta(max_length=366)] = []
    decision_sha256: Name = ""
    """The record on `freshet.decisions.v1` that says so; empty where `begins_at_ms` is null."""
    calibrated: Annotated[list[Count], Meta(max_length=4_096)] = []
    """Empty: no step was."""


class Compute(Record, frozen=True, kw_only=True):
    """Where a forecast was computed; the same values promise the same bits."""

    device: Name
    dtype: Name
    batch_shape: Annotated[list[Count], Meta(max_length=8)]


ForecastStatus = Literal["ok", "degraded", "short_history", "cold_start", "silent", "warming_up"]
"""`cold_start`: the item is new and has sold nothing that is known of; `short_history`: too little
to be forecast by it alone; `silent`: nothing for so long that nothing is what is expected;
`warming_up`: the shop is too young for any forecast, or nobody knows yet what siblings of an item
that never sold sell, so `quantiles` is empty.
"""


class Forecast(Record, frozen=True, kw_only=True):
    """`freshet.forecasts.v1`, key item_id: quantiles of units per step after `cutoff_ms`.

    There is one for each item, resolution and cutoff, whatever the weights. `quantiles[step]` are
    for the bucket `[cutoff_ms + step * resolution_ms, + resolution_ms)`; where days have 23 or 25
    hours, for that from `step_starts_ms[step]` to the next start, the last one to `ends_at_ms`.
    `conversion` is the same of units per view, where `worker.conversion` asks for it and the item
    was viewed. On `freshet.forecasts.latest.v1` the key is `item_id@resolution_ms`.
    """

    happened = ("cutoff_ms", "issued_at_ms")

    forecast_id: Name
    item_id: Name
    sku: Name
    region: Name
    resolution_ms: Ms
    cutoff_ms: Ms
    issued_at_ms: Ms
    quantile_levels: Annotated[list[float], Meta(max_length=256)]
    quantiles: Quantiles
    weights_version: Name
    weights_sha256: Name
    offsets: Annotated[dict[Name, Int], Meta(max_length=100_000)]
    context_sha256: Name
    compute: Compute
    status: ForecastStatus
    adjustments: Adjustments = Adjustments()
    cumulative: Cumulative | None = None
    conversion: Quantiles | None = None
    step_starts_ms: Annotated[list[Ms], Meta(max_length=4_096)] | None = None
    ends_at_ms: Ms | None = None
    effects_sha256: Name = ""


class ForecastRound(Record, frozen=True, kw_only=True):
    """`freshet.rounds.v1`, key `shard@resolution_ms`: what was published of a shard at a cutoff.

    `skipped` cutoffs before this one, from `skipped_from_ms` on, have no forecasts and will get
    none. An incomplete round ended early; another record of the same cutoff may follow.
    """

    happened = ("cutoff_ms", "issued_at_ms")

    shard: Count
    num_shards: Count
    resolution_ms: Ms
    cutoff_ms: Ms
    issued_at_ms: Ms
    complete: bool
    expected: Count
    published: Count
    weights_version: Name
    skipped: Count = 0
    skipped_from_ms: Ms | None = None


Numbers = Annotated[list[Amount], Meta(max_length=10_000)]
Columns = Annotated[list[Count], Meta(max_length=1_024)]


class EffectsClosing(Record, frozen=True, kw_only=True):
    """What closes steps: `[column, value]` of known covariates, and slots of the week."""

    states: Annotated[list[tuple[Count, Amount]], Meta(max_length=1_024)] = []
    slots: Annotated[list[Count], Meta(max_length=10_080)] = []
    by_calendar: bool = False


class EffectsSlopes(Record, frozen=True, kw_only=True):
    """Effects of numbers; `weights` are per place between low and high, and per its logarithm.

    All together are between `least` and `most`.
    """

    columns: Columns
    low: Numbers
    high: Numbers
    mean: Numbers
    weights: Annotated[list[Numbers], Meta(max_length=2)]
    least: float
    most: float


class EffectsEvents(Record, frozen=True, kw_only=True):
    """Effects of days, from all of the past and without each half-year of it."""

    flags: Columns
    flag_in_cells: Annotated[list[bool], Meta(max_length=1_024)]
    weights: Numbers
    weights_by_half_year: Annotated[list[Numbers], Meta(max_length=256)]
    half_years: Annotated[list[Int], Meta(max_length=256)]
    end_day: Int


class EffectsKind(Record, frozen=True, kw_only=True):
    """What siblings are told apart by: a static column; of numbers, the edges of its bands."""

    name: Name
    edges: Annotated[list[Amount], Meta(max_length=64)] = []


class EffectsPool(Record, frozen=True, kw_only=True):
    """What the items of one kind sell in a step.

    `path` is what they have in common, `profile` by slot of the week, `levels` what equally many of
    them sell in a step on average, `shapes` what these are worth (of gamma distributions), `size`
    that of the negative binomial around a level.
    """

    path: Annotated[list[str], Meta(max_length=16)]
    profile: Annotated[list[Amount], Meta(min_length=1, max_length=168)]
    levels: Annotated[list[Amount], Meta(min_length=1, max_length=64)]
    shapes: Annotated[list[Amount], Meta(min_length=1, max_length=64)]
    size: Amount


class EffectsPools(Record, frozen=True, kw_only=True):
    """What siblings sell; of amounts, in `unit`. The first pool is of all items."""

    kinds: Annotated[list[EffectsKind], Meta(max_length=16)] = []
    pools: Annotated[list[EffectsPool], Meta(max_length=64)] = []
    unit: Amount = 1.0


class EffectsRecord(Record, frozen=True, kw_only=True):
    """`freshet.effects.v1`, compacted: what all items of a shop do alike, as of a local midnight.

    The key is the sha256 of the value in hexadecimal digits; under `current@resolution_ms` the
    newest record of a resolution lies once more. Nothing that happened after `as_of_ms` was looked
    at. Columns are places in `known_names`; `places` are `[column, slot, percent]`.
    """

    happened = ("as_of_ms",)

    resolution_ms: Ms
    as_of_ms: Ms
    num_items: Count
    offsets: Annotated[dict[Name, Int], Meta(max_length=100_000)]
    known_names: Annotated[list[Name], Meta(max_length=1_024)]
    continuous: bool
    closing: EffectsClosing
    places: Annotated[list[tuple[Count, Count, bool]], Meta(max_length=1_024)]
    slopes: EffectsSlopes
    events: EffectsEvents
    country: Name | None = None
    pools: EffectsPools = EffectsPools()


class NetworkStep(Record, frozen=True, kw_only=True):
    """The same fields of a step as the network forecast it."""

    pit: Annotated[float, Meta(ge=0, le=1)]
    residual: Amount
    median: Amount


class ScoredStep(Record, frozen=True, kw_only=True):
    """One step of one forecast held against its final bucket."""

    forecast_id: Name
    weights_version: Name
    step: Count
    pinball: Amount
    seasonal_naive_pinball: Amount | None
    pit: Annotated[float, Meta(ge=0, le=1)]
    residual: Amount
    covered_80: bool
    median: Amount | None = None
    adjusted: bool = False
    """Whether the forecast was served differently because its segment drifts."""
    high: Amount | None = None
    """What the network forecast at the level .9."""
    network: NetworkStep | None = None
    """Where other levels were served than the network's own: how it would have been scored."""


class Score(Record, frozen=True, kw_only=True):
    """`freshet.scores.v1`, key item_id: a final bucket, each forecast step due on it scored once.

    `pinball` is the mean over `quantile_levels` of twice the pinball loss, in units, so that the
    sum over records divided by the sum of `actual` is WQL. `pit` is randomised for counts;
    `residual` is (actual - median) / scale. `steps` judge what was served; `unadjusted` what would
    have been served of it without adjustments for a drift, where that was forecast besides.
    """

    happened = ("bucket_start_ms", "scored_at_ms")

    item_id: Name
    segment: Name
    resolution_ms: Ms
    bucket_start_ms: Ms
    scored_at_ms: Ms
    actual: Amount
    steps: Annotated[list[ScoredStep], Meta(max_length=4_096)]
    in_stock: bool = True
    promoted: bool = False
    """On an announced promotion in this bucket, as far as was known when it was scored."""
    unadjusted: Annotated[list[ScoredStep], Meta(max_length=4_096)] = []


class ShardScored(Record, frozen=True, kw_only=True):
    """`freshet.scored.v1`, compacted, key `shard@resolution_ms`: how far a shard is scored.

    Every score of a bucket that ends by `scored_until_ms` was acknowledged before this was sent;
    none of such a bucket follows. `begun_ms` is the shop's first event.
    """

    happened = ("scored_until_ms", "scored_at_ms")

    shard: Count
    num_shards: Count
    resolution_ms: Ms
    scored_until_ms: Ms
    scored_at_ms: Ms
    begun_ms: Ms | None = None


DriftKind = Literal["level", "spread", "timing", "data"]


class DriftAlert(Record, frozen=True, kw_only=True):
    """`freshet.drift.v1`, key segment: its forecasts stopped being right, or are right again."""

    happened = ("detected_at_ms", "onset_ms")

    alert_id: Name
    segment: Name
    state: Literal["warning", "drift", "stable"]
    kind: DriftKind
    detector: Name
    detected_at_ms: Ms
    onset_ms: Ms
    size: float
    weights_version: Name
    description: Text
    action: Text
    resolution_ms: Ms | None = None
    """Of the forecasts; null in records of version 1, which knew one alone."""

    def concerns(self, resolution_ms: int) -> bool:
        """Whether it is about forecasts of this resolution."""
        return self.resolution_ms in (None, resolution_ms)


class OwnerState(Record, frozen=True, kw_only=True):
    """`freshet.owner.v1`, compacted, key `drift@resolution_ms/part`: what drift's owner knows.

    It is written in one transaction with the alerts that led to it. `state` is for the next owner
    alone: its format is no promise.
    """

    happened = ("decided_until_ms",)

    resolution_ms: Ms
    decided_until_ms: Ms
    """The end of the newest bucket that was looked at."""
    offsets: Annotated[dict[Name, Count], Meta(max_length=100_000)]
    """By partition of the scores topic: what comes from here on was not looked at."""
    part: Count
    parts: Count
    """0: the state was too large to be kept."""
    tensions: Annotated[dict[Name, Amount], Meta(max_length=100_000)] = {}
    """By segment, in the first part: 0 calm to 1 in alarm."""
    state: Annotated[str, Meta(max_length=1_000_000)] = ""


AdjustmentName = Literal["as_it_is", "hidden", "level", "profile", "shifted"]
"""`level` is what earlier versions decided."""


class SegmentAdjustment(Record, frozen=True, kw_only=True):
    """How one segment in alarm is served, and what that would have brought lately."""

    segment: Name
    how: AdjustmentName
    begins_at_ms: Ms | None = None
    """As in the forecasts' `adjustments`; null: as it is."""
    moved: Annotated[list[Annotated[float, Meta(ge=-50, le=50)]], Meta(max_length=366)] = []
    sample: Names = []
    """Items that were tried, and are forecast without adjustments besides."""
    buckets: Count = 0
    """Final buckets on which all ways were tried."""
    losses: dict[Name, Amount] = {}
    """What each way would have lost on them, in units."""


class AdjustmentDecision(Record, frozen=True, kw_only=True):
    """`freshet.decisions.v1`, compacted, key the sha256 of the value: how segments are served.

    It holds for cutoffs after `as_of_ms`, until a newer one; without segments all is as it was.
    """

    happened = ("as_of_ms",)

    resolution_ms: Ms
    as_of_ms: Ms
    weights_version: Name
    segments: Annotated[list[SegmentAdjustment], Meta(max_length=1_024)] = []


class QuantileMap(Record, frozen=True, kw_only=True):
    """Steps of a segment whose quantiles are served at other levels of the network.

    They are those from `first_step` to `last_step` (from 1 on; null: to the end) of which the
    network's .9 quantile is at least `from_units` and below `below_units`.
    """

    segment: Name
    """`all` means every item for which no map of its own segment says otherwise."""
    first_step: Count
    last_step: Count | None
    from_units: Amount
    below_units: Amount | None
    levels: Annotated[list[Annotated[float, Meta(gt=0, lt=1)]], Meta(max_length=256)]
    """The network's level behind each of `quantile_levels`; straight between them, to 0 and 1.
    Empty: the network's own, though there is a map of `all`."""
    certainty: Amount
    """What it would have saved on days that it had not seen, in standard deviations of that."""


class CalibrationDecision(Record, frozen=True, kw_only=True):
    """`freshet.decisions.v1`, key `calibration:` and the sha256 of the value: at which levels of
    the network quantiles are served.

    It holds for cutoffs after `as_of_ms`, until a newer one; where no map says otherwise quantiles
    are the network's own.
    """

    happened = ("as_of_ms",)

    resolution_ms: Ms
    as_of_ms: Ms
    quantile_levels: Annotated[list[float], Meta(max_length=256)]
    maps: Annotated[list[QuantileMap], Meta(max_length=4_096)] = []


class RetrainRequest(Record, frozen=True, kw_only=True):
    """`freshet.retrain.v1`, key request_id: ask `learn` for new weights (or to roll back)."""

    happened = ("requested_at_ms",)

    request_id: Name
    requested_at_ms: Ms
    reason: Literal["drift", "schedule", "manual", "rollback"]
    segments: Names = []
    alert_ids: Names = []


ModelEventKind = Literal[
    "training",
    "trial",
    "rejected",
    "promoted",
    "swapped",
    "swap_failed",
    "confirmed",
    "rolled_back",
]


class ServingVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One of two versions that serve: which weights, by checksum, and whom.

    The first of the two is the default and names no segments; the second serves those it names.
    """

    version: Name
    sha256: Name = ""
    manifest_sha256: Name = ""
    segments: Annotated[list[Name], Meta(max_length=256)] = []


class ModelEvent(Record, frozen=True, kw_only=True):
    """`freshet.models.v1`, key `<kind>:<version>[:<worker>]`, compacted: the life of a version.

    A worker serves the version of the newest `promoted` or `rolled_back` event; it answers with
    `swapped`. Such an event counts only with the sha256 of the manifest that the registry holds of
    that version, or for `base`, which has none. `sha256` is that of the weights, `uri` the folder
    on the machine that announces, for people; weights are read from the registry alone.

    Where two versions serve, `serves` names both, each with its checksums, and `version` is the one
    that was promoted, or gone back to; where it is empty, `version` serves everybody.
    """

    happened = ("at_ms",)

    kind: ModelEventKind
    version: Name
    at_ms: Ms
    sha256: Name = ""
    manifest_sha256: Name = ""
    uri: Text = ""
    parent: Name = ""
    request_id: Name = ""
    worker: Name = ""
    pause_ms: float | None = None
    reason: Text = ""
    gate: Annotated[dict[Name, float | Text | bool], Meta(max_length=256)] = {}
    serves: Annotated[list[ServingVersion], Meta(max_length=2)] = []


class AlertData(Record, frozen=True, kw_only=True):
    """What an alert says to a person."""

    happened = ("starts_at_ms", "updated_at_ms")

    state: Literal["firing", "updated", "resolved"]
    severity: Literal["info", "warning", "critical"]
    title: Text
    description: Text
    starts_at_ms: Ms
    updated_at_ms: Ms
    labels: Annotated[dict[Name, Text], Meta(max_length=64)] = {}
    ends_at_ms: Ms | None = None


class Alert(Record, frozen=True, kw_only=True, rename={"data_content_type": "datacontenttype"}):
    """`freshet.alerts.v1`, key fingerprint: a CloudEvents 1.0 envelope, `subject` the same."""

    id: Name
    source: Name
    type: Name
    subject: Name
    time: Name
    data: AlertData
    specversion: Name = "1.0"
    data_content_type: Name = "application/json"


# Identity of a series -----------------------------------------------------------------------------


def item_id_of(values: list[str]) -> str:
    """Join the `series_by` values into an item id, escaping the separator.

    >>> item_id_of(["a|b", "north"])
    'a\\\\|b|north'
    """
    return "|".join(value.replace("\\", "\\\\").replace("|", "\\|") for value in values)


def item_id_parts(item_id: str) -> list[str]:
    r"""Split an item id back into its `series_by` values.

    >>> item_id_parts('a\\|b|north')
    ['a|b', 'north']
    """
    parts, part, escaped = [], "", False
    for letter in item_id:
        if escaped:
            part, escaped = part + letter, False
        elif letter == "\\":
            escaped = True
        elif letter == "|":
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]


# What each topic holds ----------------------------------------------------------------------------

RECORDS: Mapping[str, type[Record]] = {
    "orders": OrderEvent,
    "clicks": ClickEvent,
    "catalog": CatalogEntry,
    "promotions": Promotion,
    "inventory": InventoryLevel,
    "covariates": Covariate,
    "windows": WindowsAdvanced,
    "forecasts": Forecast,
    "rounds": ForecastRound,
    "shadow": Forecast,
    "scores": Score,
    "scored": ShardScored,
    "drift": DriftAlert,
    "retrain": RetrainRequest,
    "models": ModelEvent,
    "effects": EffectsRecord,
    "owner": OwnerState,
    "decisions": AdjustmentDecision,
    "alerts": Alert,
}
BESIDE: Mapping[str, type[Record]] = {"calibrations": CalibrationDecision}
"""What lies on a topic beside its own records: these on that of decisions."""
ShopTable = Literal["catalog", "promotions", "inventory", "covariates"]
SHOP_TABLES: tuple[ShopTable, ...] = ("catalog", "promotions", "inventory", "covariates")
"""The topics that a shop keeps as tables: compacted, the newest record of a key counts."""
