"""Forecasts as records: nine wire levels, four significant digits, an id of what they came from.

Dimensions: B rows, H steps, K sums over first steps, Q levels of the network, W wire levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import torch
import xxhash
from msgspec.structs import replace
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.conversion import conversion
from freshet.online.adjust.beginning import Beginning
from freshet.online.adjust.calibrated import Calibrated
from freshet.online.adjust.record import hashed, maps_of, with_beginnings, with_maps
from freshet.online.drift.pending import Issued
from freshet.online.forecast.context import Age, Contexts, age_of
from freshet.online.forecast.provenance import context_sha256
from freshet.online.forecast.sums import StepSums
from freshet.online.weights.loaded import LoadedWeights
from freshet.stream.arrays import Floats, Ints, Reals
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import (
    WIRE_LEVELS,
    Adjustments,
    Compute,
    Cumulative,
    Forecast,
    ForecastStatus,
    item_id_parts,
)

SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Origin:
    """What all forecasts of a round have in common that are made by one version.

    Attributes:
        cutoff_ms: End of the newest bucket used.
        offsets: Of every input, as `topic:partition`.
        series_by: The fields that an item id consists of.
        degraded: Something is amiss, so no forecast of the round is called `ok`.
        warming_up: The shop is too young to say anything, so no numbers are invented.
        conversion: Whether units per view are forecast too.
        effects_sha256: Of the shared effects that contexts are dressed with; empty: without.
        edges_ms: Starts of the steps, and the end of the last, where not all are equally long.
    """

    resolution_ms: int
    cutoff_ms: int
    issued_at_ms: int
    weights_version: str
    weights_sha256: str
    offsets: dict[str, int]
    series_by: tuple[str, ...]
    degraded: bool
    warming_up: bool = False
    adjustments: Adjustments = field(default_factory=Adjustments)
    conversion: bool = False
    edges_ms: tuple[int, ...] | None = None
    effects_sha256: str = ""
    decision_sha256: str = ""

    def by(self, weights: LoadedWeights) -> Origin:
        """The same of forecasts that these weights make."""
        return dataclasses.replace(
            self, weights_version=weights.version, weights_sha256=weights.sha256
        )


class Numbers(NamedTuple):
    """What the records of a micro-batch say: quantiles of steps, and of sums over `sum_steps`.

    And of the conversion at each step, where it is asked for; NaN in rows without views.
    `adjustments` are those of rows that were moved by themselves.
    """

    steps_BHW: Floats
    sums_BKW: Floats
    sum_steps: list[int]
    conversion_BHW: Floats | None = None
    adjustments: Mapping[int, Adjustments] = {}


class Steps(NamedTuple):
    """Quantiles of steps, at levels of the network, as they are served.

    `maps_BH` says by which map of the decision each step is served, 0 by none; None: all by none.
    """

    quantiles_BHQ: Tensor
    maps_BH: Ints | None = None
    calibration_id: str = ""


class WholeDays(Protocol):
    """What a round has to agree with: see `online/forecast/wholedays.py`."""

    @property
    def ends(self) -> Sequence[int]:
        """After which steps sums are needed beside the usual ones."""
        ...

    def agreed(
        self, item_ids: Sequence[str], batch: Batch, numbers: Numbers, forecaster: BatchForecaster
    ) -> Numbers:
        """The numbers of a micro-batch that a forecaster made, moved."""
        ...


def wire_columns(quantile_levels: Sequence[float]) -> list[int]:
    """Where the published levels are among the network's.

    Raises:
        InvalidInputError: The network lacks one of them.

    >>> wire_columns([0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
    [1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    column_of = {round(level, 6): column for column, level in enumerate(quantile_levels)}
    missing = [level for level in WIRE_LEVELS if level not in column_of]
    if missing:
        found = list(quantile_levels)
        raise InvalidInputError(
            f"the weights forecast the levels {found}; expected {missing} among them"
        )
    return [column_of[level] for level in WIRE_LEVELS]


def significant(values: Reals, digits: int = SIGNIFICANT_DIGITS) -> Floats:
    """Values rounded to so many significant digits, each as the nearest double: it prints short.

    >>> significant(np.array([0.123456, 1234.56, 987654.0, 0.0])).tolist()
    [0.1235, 1235.0, 987700.0, 0.0]
    """
    exact = np.asarray(values, np.float64)
    # The place of the first digit: 0 for 1 to 9.99, -1 for 0.1 to 0.999.
    place = np.floor(np.log10(np.where(exact > 0, exact, 1.0)))
    power = 10.0 ** np.abs(digits - 1 - place)
    # Dividing by a power of ten rounds correctly, multiplying by its inexact inverse would not.
    small = np.rint(exact * power) / power
    large = np.rint(exact / power) * power
    return np.asarray(np.where(place <= digits - 1, small, large))


def forecast_ids(
    item_ids: Sequence[str],
    context_sha256: Sequence[str],
    origin: Origin,
    adjustments: Mapping[int, Adjustments] = {},
) -> list[str]:
    """The same forecast has the same id wherever it is made: 32 hexadecimal digits.

    They are xxh3-128 of cutoff, resolution, offsets, weights, adjustments, and then the item and
    what it was forecast from: two contexts never share an id. `adjustments` of single rows go in
    between.
    """
    adjusted = hashed(origin.adjustments)
    weights = (origin.weights_version, origin.weights_sha256)
    common = [
        origin.resolution_ms,
        origin.cutoff_ms,
        sorted(origin.offsets.items()),
        weights,
        adjusted,
        origin.effects_sha256,
    ]
    start = xxhash.xxh3_128(msgspec.json.encode(common))
    ids = []
    for row, (item_id, context) in enumerate(zip(item_ids, context_sha256, strict=True)):
        digest = start.copy()
        if row in adjustments:
            digest.update(msgspec.json.encode(hashed(adjustments[row])))
        digest.update(f"{context}{item_id}".encode())
        ids.append(digest.hexdigest())
    return ids


def forecast_records(
    item_ids: Sequence[str],
    numbers: Numbers,
    origin: Origin,
    *,
    age: Age,
    context_sha256: Sequence[str],
    compute: Compute,
) -> list[Forecast]:
    """The records of one micro-batch, in the order of its rows."""
    ids = forecast_ids(item_ids, context_sha256, origin, numbers.adjustments)
    edges_ms = list(origin.edges_ms) if origin.edges_ms else None
    quantile_levels = list(WIRE_LEVELS)
    quantiles = numbers.steps_BHW.tolist()
    sums = numbers.sums_BKW.tolist()
    conversions = _known_rows(numbers.conversion_BHW, len(item_ids))
    records = []
    for row, item_id in enumerate(item_ids):
        fields = dict(zip(origin.series_by, item_id_parts(item_id), strict=False))
        record = Forecast(
            forecast_id=ids[row],
            item_id=item_id,
            sku=fields.get("sku", item_id),
            region=fields.get("region", "-"),
            resolution_ms=origin.resolution_ms,
            cutoff_ms=origin.cutoff_ms,
            issued_at_ms=origin.issued_at_ms,
            quantile_levels=quantile_levels,
            quantiles=quantiles[row],
            weights_version=origin.weights_version,
            weights_sha256=origin.weights_sha256,
            offsets=origin.offsets,
            context_sha256=context_sha256[row],
            compute=compute,
            status=_status(origin, age, row),
            adjustments=_adjusted(origin.adjustments, numbers.adjustments.get(row)),
            cumulative=_cumulative(numbers.sum_steps, sums[row]),
            conversion=conversions[row],
            step_starts_ms=edges_ms[:-1] if edges_ms else None,
            ends_at_ms=edges_ms[-1] if edges_ms else None,
            effects_sha256=origin.effects_sha256,
        )
        records.append(record)
    return records


def _adjusted(all_rows: Adjustments, own: Adjustments | None) -> Adjustments:
    if own is None:
        return all_rows
    return replace(
        all_rows,
        sums_from=own.sums_from,
        mixed_with=own.mixed_with,
        begins_at_ms=own.begins_at_ms,
        moved=own.moved,
        decision_sha256=own.decision_sha256,
        calibration_id=own.calibration_id,
        calibrated=own.calibrated,
    )


def _cumulative(steps: list[int], quantiles: list[list[float]]) -> Cumulative | None:
    return Cumulative(steps=steps, quantiles=quantiles) if steps else None


def _status(origin: Origin, age: Age, row: int) -> ForecastStatus:
    if origin.warming_up:
        return "warming_up"
    if age.cold[row]:
        return "cold_start"
    if age.short[row]:
        return "short_history"
    if age.silent[row]:
        return "silent"
    return "degraded" if origin.degraded else "ok"


def _known_rows(values_BHW: Floats | None, num_rows: int) -> list[list[list[float]] | None]:
    if values_BHW is None:
        return [None] * num_rows
    return [row_HW.tolist() if np.isfinite(row_HW).all() else None for row_HW in values_BHW]


def forecast_items(
    contexts: Contexts,
    weights: LoadedWeights,
    origin: Origin,
    sums: StepSums,
    *,
    rows: Sequence[int],
    cold: Sequence[str],
    whole_days: WholeDays | None = None,
    beginnings: Callable[[Sequence[str]], Sequence[Beginning | None]] = lambda item_ids: (),
    calibrated: Calibrated | None = None,
) -> list[Forecast]:
    """Forecast one micro-batch: items with a row, then cold ones without; records in that order.

    All that is known of a cold item is what its siblings sell. So without shared effects nothing is
    said of it. `beginnings` say from where contexts of items begin whose segment drifts, and
    `calibrated` at which levels of the network quantiles are served.
    """
    records: list[Forecast] = []
    if rows:
        item_ids = [contexts.item_ids[row] for row in rows]
        begin = beginnings(item_ids)
        batch = plain = contexts.batch(rows, origin.cutoff_ms)
        if any(begin):
            batch = contexts.batch(rows, origin.cutoff_ms, begin)
        records += _forecast_batch(
            weights,
            origin,
            sums,
            item_ids,
            batch,
            whole_days,
            begin=begin,
            plain=plain,
            calibrated=calibrated,
        )
    if cold:
        batch = contexts.cold_batch(list(cold), origin.cutoff_ms)
        of_siblings = origin
        if not origin.effects_sha256:
            of_siblings = dataclasses.replace(origin, warming_up=True)
        records += _forecast_batch(
            weights, of_siblings, sums, cold, batch, whole_days, calibrated=calibrated
        )
    return records


def _forecast_batch(
    weights: LoadedWeights,
    origin: Origin,
    sums: StepSums,
    item_ids: Sequence[str],
    batch: Batch,
    whole_days: WholeDays | None,
    *,
    begin: Sequence[Beginning | None] = (),
    plain: Batch | None = None,
    calibrated: Calibrated | None = None,
) -> list[Forecast]:
    """The records of one batch; `plain` is the one without beginnings.

    What an item is, and whether it sells whole units, does not depend on what is hidden of it.
    """
    forecaster = weights.forecaster
    plain = batch if plain is None else plain
    if origin.warming_up:
        numbers = _nothing(batch)
    else:
        steps = _steps(forecaster, batch, item_ids, calibrated)
        ends = () if whole_days is None else whole_days.ends
        numbers = _numbers(forecaster, sums, plain, steps.quantiles_BHQ, ends)
        if origin.conversion:
            numbers = numbers._replace(conversion_BHW=_conversion(forecaster, batch))
        if whole_days is not None:
            numbers = whole_days.agreed(item_ids, plain, numbers, forecaster)
        mapped = with_maps(numbers.adjustments, steps.maps_BH, steps.calibration_id)
        numbers = numbers._replace(adjustments=mapped)
    adjustments = with_beginnings(numbers.adjustments, begin, origin.decision_sha256)
    numbers = numbers._replace(adjustments=adjustments)
    compute = Compute(
        device=str(forecaster.device),
        dtype=str(forecaster.dtype).removeprefix("torch."),
        batch_shape=[len(batch), batch.context_length],
    )
    return forecast_records(
        item_ids,
        numbers,
        origin,
        age=age_of(plain),
        context_sha256=context_sha256(batch),
        compute=compute,
    )


def _steps(
    forecaster: BatchForecaster,
    batch: Batch,
    item_ids: Sequence[str],
    calibrated: Calibrated | None,
) -> Steps:
    """What is served of the steps: the network's own, but where a map says otherwise."""
    own_BHQ = forecaster.forecast(batch)
    if calibrated is None or not calibrated.name:
        return Steps(own_BHQ)
    levels = forecaster.quantile_levels
    quantiles_BHQ = own_BHQ.double().cpu().numpy()
    maps_BH = calibrated.places(item_ids, quantiles_BHQ, levels)
    if maps_BH is None:
        return Steps(own_BHQ)
    moved_BHQ = torch.from_numpy(calibrated.moved(quantiles_BHQ, levels, maps_BH))
    return Steps(moved_BHQ.to(own_BHQ), maps_BH, calibrated.name)


def _numbers(
    forecaster: BatchForecaster,
    sums: StepSums,
    plain: Batch,
    steps_BHQ: Tensor,
    ends: Sequence[int],
) -> Numbers:
    levels = forecaster.quantile_levels
    columns = wire_columns(levels)
    sum_steps = sorted({*sums.steps, *ends})
    sums_BKQ = sums.quantiles(plain.target_BT, steps_BHQ, levels, steps=sum_steps)
    return Numbers(published(steps_BHQ, columns), published(sums_BKQ, columns), sum_steps)


def _conversion(forecaster: BatchForecaster, batch: Batch) -> Floats:
    return published(conversion(forecaster, batch), wire_columns(forecaster.quantile_levels))


def _nothing(batch: Batch) -> Numbers:
    """No steps at all: a shop that has just begun says nothing yet."""
    none_BHW = np.zeros((len(batch), 0, len(WIRE_LEVELS)))
    return Numbers(none_BHW, none_BHW, [])


def published(values: Tensor, columns: list[int]) -> Floats:
    """The wire levels out of the last dimension, rounded."""
    return significant(values[..., columns].double().cpu().numpy())


def issued_of(records: Sequence[Forecast], steps: Sequence[int]) -> list[Issued]:
    """The scored steps of records that share a cutoff, by the weights that made them."""
    by_version: dict[str, list[Forecast]] = {}
    for record in records:
        by_version.setdefault(record.weights_version, []).append(record)
    return [_issued(version, made, steps) for version, made in by_version.items()]


def _issued(version: str, records: Sequence[Forecast], steps: Sequence[int]) -> Issued:
    quantiles_IKQ = [[record.quantiles[step - 1] for step in steps] for record in records]
    return Issued(
        records[0].cutoff_ms,
        version,
        WIRE_LEVELS,
        [record.item_id for record in records],
        [record.forecast_id for record in records],
        np.array(quantiles_IKQ, np.float32),
        np.array([record.adjustments.begins_at_ms is not None for record in records], bool),
        # Those of a round are by one decision.
        max(record.adjustments.calibration_id or "" for record in records),
        np.array([maps_of(record.adjustments, steps) for record in records], np.int64),
    )
