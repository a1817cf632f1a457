"""One training: what it was asked for and begins from, what it made, and the terms of its trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from freshet.model.network import FreshetNetwork
from freshet.online.judge.standing import Standing
from freshet.online.learn.finetune import Challenger
from freshet.online.trials.contest import Terms, chosen_items, measured, whole_days
from freshet.online.trials.evaluation import served_by
from freshet.online.trials.guard import Guard, try_guards
from freshet.online.trials.pools import History, Pools
from freshet.online.trials.windows import Split
from freshet.online.weights.assignment import Assignment
from freshet.stream.config import LearnSettings
from freshet.stream.schemas import RetrainRequest


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of a training before it begins.

    Attributes:
        request: What it answers.
        serving: Who serves whom.
        onset_ms: Since when it drifts; None where nothing does.
        split: The parts of the past.
    """

    request: RetrainRequest
    serving: Assignment
    onset_ms: int | None
    split: Split

    @property
    def parent(self) -> str:
        """The champion of most of what the request names: whom the challenger is held against."""
        return self.serving.most_of(self.request.segments)

    def terms(
        self, history: History, settings: LearnSettings, *, standing: Standing, error: float
    ) -> Terms:
        """What is declared before the first look.

        Args:
            history: The window store's past.
            settings: How to judge.
            standing: What was measured of the challenger.
            error: Chance that may be spent on an equal challenger.
        """
        parent, split = self.parent, self.split
        segments = tuple(self.request.segments)
        others = (version for version in self.serving.versions if version != parent)
        served = served_by(self.serving, parent)
        return Terms(
            request_id=self.request.request_id,
            parent=parent,
            beside="".join(others),
            segments=segments,
            onset_ms=self.onset_ms,
            start_ms=split.holdout_start_ms,
            first_days=whole_days(split.grid, split.holdout_buckets),
            num_looks=settings.trial_days,
            error=error,
            item_ids=chosen_items(history, segments, settings.seed, served),
            standing=standing,
        )


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a training made, and of what.

    Attributes:
        begun: The version that it went on from.
        champion: The parent's network.
        base: The shipped weights.
        pools: Windows that it learnt from and was chosen on.
        challenger: What came of it.
    """

    begun: str
    champion: FreshetNetwork
    base: FreshetNetwork
    pools: Pools
    challenger: Challenger

    def standing(self, guards: Iterable[Guard], seed: int) -> Standing:
        """What is measured once; blocks for seconds.

        Args:
            guards: The pasts of the other resolutions.
            seed: Chooses their windows.
        """
        champion, challenger = self.champion, self.challenger.network
        guarded = try_guards(guards, champion, challenger, seed=seed)
        return measured(
            champion,
            challenger,
            base=self.base,
            anchors=self.pools.anchors,
            pool=self.pools.validation,
            guards=guarded,
        )
