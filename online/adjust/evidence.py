"""What PITs say of each cell, day by day: which map would make them even, and whether it paid.

A cell is a segment, a band of steps and a class of volume. Days are the unit of evidence: the hours
of a day, and the items of an hour, move together. Segment 0 is the whole shop.

Each morning's maps, fitted on the days before, are held against the day that follows, by a
consistent score of quantiles (pinball) that PITs alone tell. Who wins such a comparison of
forecasts on days unseen is told by the mean of the daily differences over its own deviation
(Diebold and Mariano 1995); that it is looked at daily is why so much is asked of it.

Dimensions: S segments, K bands of steps, C classes of volume, B bins of levels, R PITs, W levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.online.adjust.levels import BINS, EDGES, WIRE_W, inverted
from freshet.stream.arrays import Bools, Floats, Ints

SHOP = 0
HALF_LIFE_DAYS = 28.0
DECAY = 2.0 ** (-1.0 / HALF_LIFE_DAYS)
# What a map saved is forgotten sooner, so that one that was right once goes soon when it is not.
HOLD_OUT_HALF_LIFE_DAYS = 14.0
HOLD_OUT_DECAY = 2.0 ** (-1.0 / HOLD_OUT_HALF_LIFE_DAYS)
# A day's PITs say as much as so many independent ones, at most.
DAY_COUNTS = 100.0
# The shop counts as if so many even PITs had come before it, a segment as if so many of the shop.
DOUBT = 400.0
EVEN_B = np.diff(EDGES)

# To leave the identity takes so many deviations, and so at least nine days: of n days that gain
# alike it is the root of n. To stay takes less.
ENTER = 3.0
STAY = 1.0
# A segment is served as the shop is unless its own days object by so much.
OBJECTS = -2.0
OWN, OF_SHOP = 0, 1


@dataclass(slots=True)
class Evidence:
    """Decayed sums over days that are over, and sums of the day in hand.

    Attributes:
        counts: PITs in each bin, discounted to what they are worth as independent ones: [S,K,C,B].
        today: PITs of the day in hand: [S,K,C,B].
        gain_today: What this morning's maps would have saved so far, the segment's own (`OWN`)
            and the shop's (`OF_SHOP`): [2,S,K,C].
        gain: Decayed sum of what they saved on each day: [2,S,K,C].
        square: Decayed sum of its squares: [2,S,K,C].
        serving: Whether the segment's own map has earned its place: [S,K,C].
    """

    counts: Floats
    today: Floats
    gain_today: Floats
    gain: Floats
    square: Floats
    serving: Bools

    @classmethod
    def none(cls, segments: int, bands: int, classes: int) -> Evidence:
        """Nothing is known."""
        shape = (segments, bands, classes)
        return cls(
            counts=np.zeros((*shape, BINS)),
            today=np.zeros((*shape, BINS)),
            gain_today=np.zeros((2, *shape)),
            gain=np.zeros((2, *shape)),
            square=np.zeros((2, *shape)),
            serving=np.zeros(shape, bool),
        )

    def maps(self) -> Floats:
        """The map of each cell by the days that are over: [S,K,C,W]."""
        share_SKCB = shares(self.counts)
        maps = np.array([inverted(share_B) for share_B in share_SKCB.reshape(-1, BINS)])
        return maps.reshape(*share_SKCB.shape[:-1], len(WIRE_W))

    def take(self, cell_R: tuple[Ints, Ints, Ints], pit_R: Floats, maps: Floats) -> None:
        """Count PITs of segments, and hold this morning's maps against them."""
        _, band_R, class_R = cell_R
        bin_R = np.searchsorted(EDGES[1:-1], pit_R, side="right")
        own_R = saving(pit_R, maps[cell_R])
        of_shop_R = saving(pit_R, maps[SHOP, band_R, class_R])
        np.add.at(self.today, (*cell_R, bin_R), 1.0)
        np.add.at(self.today[SHOP], (band_R, class_R, bin_R), 1.0)
        np.add.at(self.gain_today[OWN], cell_R, own_R)
        np.add.at(self.gain_today[OF_SHOP], cell_R, of_shop_R)
        np.add.at(self.gain_today[OWN, SHOP], (band_R, class_R), of_shop_R)

    def end_day(self) -> None:
        """The day is over: it counts from now on, and says which maps serve."""
        num_SKC1 = self.today.sum(-1, keepdims=True)
        worth_SKC1 = np.minimum(num_SKC1, DAY_COUNTS) / np.maximum(num_SKC1, 1.0)
        self.counts = DECAY * self.counts + worth_SKC1 * self.today
        self.gain = HOLD_OUT_DECAY * self.gain + self.gain_today
        self.square = HOLD_OUT_DECAY**2 * self.square + self.gain_today**2
        self.today = np.zeros_like(self.today)
        self.gain_today = np.zeros_like(self.gain_today)
        certain = self.certainty()[OWN]
        self.serving = certain >= np.where(self.serving, STAY, ENTER)

    def loosen(self, segment: int, kept: float) -> None:
        """Other weights serve a segment: what is known of it counts for less."""
        for sums in (self.counts, self.today):
            sums[segment] *= kept
        for sums in (self.gain, self.square, self.gain_today):
            sums[:, segment] *= kept

    def certainty(self) -> Floats:
        """What maps saved, in standard deviations of that, days being independent: [2,S,K,C]."""
        deviation = np.sqrt(self.square)
        return self.gain / np.where(deviation > 0, deviation, np.inf)

    def as_shop(self) -> Bools:
        """Where a segment without a map of its own is served by the shop's: [S,K,C]."""
        willing = self.certainty()[OF_SHOP] > OBJECTS
        return np.asarray(self.serving[SHOP] & ~self.serving & willing)


def shares(counts: Floats) -> Floats:
    """What share of PITs falls into each bin: a segment's drawn to the shop's, that to even ones.

    >>> counts = np.zeros((2, 1, 1, BINS))
    >>> counts[SHOP, 0, 0, 0] = DOUBT
    >>> shares(counts)[:, 0, 0, 0].tolist()
    [0.505, 0.505]
    """
    total = counts.sum(-1, keepdims=True)
    of_shop_KCB = (counts[SHOP] + DOUBT * EVEN_B) / (total[SHOP] + DOUBT)
    found = (counts + DOUBT * of_shop_KCB) / (total + DOUBT)
    found[SHOP] = of_shop_KCB
    return np.asarray(found)


def saving(pit_R: Floats, map_RW: Floats) -> Floats:
    """Twice the mean pinball loss of levels that a map saves: [R].

    >>> halves = np.full((1, len(WIRE_W)), .5)
    >>> saving(np.array([.5]), halves).round(4).tolist()
    [0.0577]
    """
    served_RW = _pinball(pit_R[:, None] - map_RW)
    saved_RW = _pinball(pit_R[:, None] - WIRE_W) - served_RW
    return np.asarray(2.0 * saved_RW.mean(1))


def _pinball(error_RW: Floats) -> Floats:
    return np.maximum(WIRE_W * error_RW, (WIRE_W - 1.0) * error_RW)
