"""Which items a trial judges together, and what they show: segments, named ones, the shop. Pure.

Dimensions: I items, T buckets in time order, K blocks of a day, R rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from freshet.online.judge.paired import Estimate, Noise, blocks_of, by_block, estimate, noise_of
from freshet.online.judge.standing import MIN_ITEMS, paired
from freshet.stream.arrays import Bools, Floats, Ints

SHOP, NAMED = "all", "named"


@dataclass(frozen=True, slots=True)
class Before:
    """What both versions lose on days before the trial; it says how much days differ.

    Attributes:
        champion_IK, challenger_IK: Losses of each item and day.
        stretch_K: Which days are alike: 0 before the drift, 1 since.
    """

    champion_IK: Floats
    challenger_IK: Floats
    stretch_K: Ints


@dataclass(frozen=True, slots=True)
class Rows:
    """Sets of items: every segment, those that the drift named together, and the whole shop.

    Attributes:
        names: Of the rows; the last is the shop.
        member_RI: Which items are in which.
        segments_R: Which rows are segments.
        tested: The rows that may show the gain.
    """

    names: list[str]
    member_RI: Bools
    segments_R: Bools
    tested: list[int]

    @classmethod
    def of(cls, segments: Sequence[str], affected: Collection[str]) -> Rows:
        """Those of items in segments, of which a drift named some.

        A challenger need not help every kind of drift (a level shift is mostly seen in the
        context), and where it helps all of them a little only all together are sure: so each named
        segment is a test, and all of them are one. A test of the shop would hide a local gain:
        items that did not change dilute it. Segments of too few items make no test.
        """
        segment_I = np.array(segments)
        names = sorted(set(segments))
        masks = [segment_I == name for name in names]
        tested = [
            row
            for row, name in enumerate(names)
            if name in affected and masks[row].sum() >= MIN_ITEMS
        ]
        num_segments = len(names)
        if len(tested) > 1:
            masks.append(np.any([masks[row] for row in tested], axis=0))
            names.append(NAMED)
            tested.append(num_segments)
        masks.append(np.ones(len(segment_I), bool))
        names.append(SHOP)
        segments_R = np.arange(len(names)) < num_segments
        return cls(names, np.array(masks), segments_R, tested or [len(names) - 1])

    def sums(self, values_IK: Floats) -> Floats:
        """Sums over the items of each row, [R, K]."""
        summed: Floats = self.member_RI.astype(np.float64) @ np.nan_to_num(values_IK)
        return summed

    def noise_of(self, before: Before | None) -> Noise:
        """How much days differ, from those before the trial, each stretch about its own mean."""
        noise = Noise.unknown(len(self.names))
        if before is None:
            return noise
        first_IK, second_IK = paired(before.champion_IK, before.challenger_IK)
        for stretch in np.unique(before.stretch_K):
            here_K = before.stretch_K == stretch
            first_RK, second_RK = self.sums(first_IK[:, here_K]), self.sums(second_IK[:, here_K])
            noise += noise_of(first_RK, second_RK, np.ones(first_RK.shape[1]))
        return noise

    def estimated(
        self,
        champion_IT: Floats,
        challenger_IT: Floats,
        *,
        resolution_ms: int,
        before: Before | None = None,
        unseen: float = 0.0,
    ) -> tuple[Estimate, float]:
        """The gain of every row, and on how many days.

        Args:
            champion_IT, challenger_IT: Losses, NaN in the same cells.
            resolution_ms: Length of a bucket.
            before: Days before these.
            unseen: Share of the shop's items that are not among these.
        """
        starts, days_K = blocks_of(champion_IT.shape[1], resolution_ms)
        first_IK, second_IK = by_block(champion_IT, starts), by_block(challenger_IT, starts)
        found = estimate(
            self.sums(first_IK),
            self.sums(second_IK),
            days_K,
            self.noise_of(before),
            self.segments_R,
        )
        if unseen > 0.0:
            error_R = self._error_of_items(found, first_IK.sum(1), second_IK.sum(1))
            found = replace(found, error_R=np.sqrt(found.error_R**2 + unseen * error_R**2))
        return found, float(days_K.sum())

    def _error_of_items(self, found: Estimate, first_I: Floats, second_I: Floats) -> Floats:
        """The standard error of having drawn the items of each row.

        Where all items of a shop are seen, an item on which a version is better is no chance.
        """
        total_R = np.maximum(self.sums(first_I[:, None])[:, 0], 1e-300)
        influence_RI = (1.0 - found.gain_R)[:, None] * first_I - second_I
        influence_RI = np.where(self.member_RI, influence_RI, 0.0) / total_R[:, None]
        count_R = np.maximum(self.member_RI.sum(1), 2)
        error_R: Floats = np.sqrt(count_R / (count_R - 1.0) * (influence_RI**2).sum(1))
        return error_R

    def without_best(self, row: int, champion_IT: Floats, challenger_IT: Floats) -> float:
        """The gain of a row without the item that gains most of all."""
        first_I, second_I = (
            np.nansum(loss_IT[self.member_RI[row]], axis=1)
            for loss_IT in (champion_IT, challenger_IT)
        )
        best = int(np.argmax(first_I - second_I))
        first, second = first_I.sum() - first_I[best], second_I.sum() - second_I[best]
        return 1.0 - float(second / first) if first > 0 else 0.0
