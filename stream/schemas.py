"""Every record freshet reads or writes, as typed structs: the wire format in code.

Times end in `_ms` and are epoch milliseconds UTC. Input events may carry RFC 3339 text instead; the
codec turns it into milliseconds. Unknown fields are ignored on input, so that producers may add
theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

ClickKind = Literal["view", "cart", "favourite", "checkout"]
Time = int | str

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


class CatalogEntry(Record, frozen=True, kw_only=True):
    """`freshet.catalog.v1`, key sku, compacted: what an item is and costs from then on."""

    sku: str
    title: str = ""
    category: str = ""
    brand: str = ""
    attributes: dict[str, str] = {}
    unit_price: float | None = None
    launched_at: Time | None = None


class Promotion(Record, frozen=True, kw_only=True):
    """`freshet.promotions.v1`, key promotion_id, compacted: a price cut known in advance.

    It holds in [starts_at, ends_at).
    """

    promotion_id: str
    starts_at: Time
    ends_at: Time
    discount: float
    kind: str = "promotion"
    sku: str | None = None
    category: str | None = None

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

    sku: str
    on_hand: float
    as_of: Time
    region: str | None = None


# Between the parts --------------------------------------------------------------------------------


class WindowsAdvanced(Record, frozen=True, kw_only=True):
    """`freshet.windows.v1`: Redis now holds this partition up to `offset`.

    A hint, one to each shard that was touched.
    """

    topic: str
    partition: int
    epoch: int
    offset: int
    frontier_ms: int


class Cumulative(Record, frozen=True, kw_only=True):
    """Quantiles of the sum over the first `steps` steps, for stock-out and replenishment."""

    steps: list[int]
    quantiles: list[list[float]]


class Adjustments(Record, frozen=True, kw_only=True):
    """What was done to the network's quantiles before publishing."""

    level_factor: float = 1.0
    calibration_id: str | None = None


class Compute(Record, frozen=True, kw_only=True):
    """Where a forecast was computed; the same values promise the same bits."""

    device: str
    dtype: str
    batch_shape: list[int]


ForecastStatus = Literal["ok", "degraded", "cold_start"]


class Forecast(Record, frozen=True, kw_only=True):
    """`freshet.forecasts.v1`, key item_id: quantiles of units per step after `cutoff_ms`.

    `quantiles[step][level]` is for the bucket `[cutoff_ms + step * resolution_ms, +
    resolution_ms)`. `conversion` is the same of units per view, where `worker.conversion` asks for
    it and the item was viewed.
    """

    forecast_id: str
    item_id: str
    sku: str
    region: str
    resolution_ms: int
    cutoff_ms: int
    issued_at_ms: int
    quantile_levels: list[float]
    quantiles: list[list[float]]
    weights_version: str
    weights_sha256: str
    offsets: dict[str, int]
    context_sha256: str
    compute: Compute
    status: ForecastStatus
    adjustments: Adjustments = Adjustments()
    cumulative: Cumulative | None = None
    conversion: list[list[float]] | None = None


class ScoredStep(Record, frozen=True, kw_only=True):
    """One step of one forecast held against its final bucket."""

    forecast_id: str
    weights_version: str
    step: int
    pinball: float
    seasonal_naive_pinball: float | None
    pit: float
    residual: float
    covered_80: bool
    median: float | None = None


class Score(Record, frozen=True, kw_only=True):
    """`freshet.scores.v1`, key item_id: a final bucket, each forecast step due on it scored once.

    `pinball` is the mean over `quantile_levels` of twice the pinball loss, in units, so that the
    sum over records divided by the sum of `actual` is WQL. `pit` is randomised for counts;
    `residual` is (actual - median) / scale.
    """

    item_id: str
    segment: str
    resolution_ms: int
    bucket_start_ms: int
    scored_at_ms: int
    actual: float
    steps: list[ScoredStep]
    in_stock: bool = True


DriftKind = Literal["level", "spread", "timing", "data"]


class DriftAlert(Record, frozen=True, kw_only=True):
    """`freshet.drift.v1`, key segment: its forecasts stopped being right, or are right again."""

    alert_id: str
    segment: str
    state: Literal["warning", "drift", "stable"]
    kind: DriftKind
    detector: str
    detected_at_ms: int
    onset_ms: int
    size: float
    weights_version: str
    description: str
    action: str


class RetrainRequest(Record, frozen=True, kw_only=True):
    """`freshet.retrain.v1`, key request_id: ask `learn` for new weights (or to roll back)."""

    request_id: str
    requested_at_ms: int
    reason: Literal["drift", "schedule", "manual", "rollback"]
    segments: list[str] = []
    alert_ids: list[str] = []


ModelEventKind = Literal[
    "training", "rejected", "promoted", "swapped", "swap_failed", "confirmed", "rolled_back"
]


class ModelEvent(Record, frozen=True, kw_only=True):
    """`freshet.models.v1`, key `<kind>:<version>[:<worker>]`, compacted: the life of a version.

    A worker serves the version of the newest `promoted` or `rolled_back` event; it answers with
    `swapped`.
    """

    kind: ModelEventKind
    version: str
    at_ms: int
    sha256: str = ""
    uri: str = ""
    parent: str = ""
    request_id: str = ""
    worker: str = ""
    pause_ms: float | None = None
    reason: str = ""
    gate: dict[str, float | str | bool] = {}


class AlertData(Record, frozen=True, kw_only=True):
    """What an alert says to a person."""

    state: Literal["firing", "updated", "resolved"]
    severity: Literal["info", "warning", "critical"]
    title: str
    description: str
    starts_at_ms: int
    updated_at_ms: int
    labels: dict[str, str] = {}
    ends_at_ms: int | None = None


class Alert(Record, frozen=True, kw_only=True, rename={"data_content_type": "datacontenttype"}):
    """`freshet.alerts.v1`, key fingerprint: a CloudEvents 1.0 envelope, `subject` the same."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: AlertData
    specversion: str = "1.0"
    data_content_type: str = "application/json"


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
    "windows": WindowsAdvanced,
    "forecasts": Forecast,
    "scores": Score,
    "drift": DriftAlert,
    "retrain": RetrainRequest,
    "models": ModelEvent,
    "alerts": Alert,
}
ShopTable = Literal["catalog", "promotions", "inventory"]
SHOP_TABLES: tuple[ShopTable, ...] = ("catalog", "promotions", "inventory")
"""The topics that a shop keeps as tables: compacted, the newest record of a key counts."""
