"""Pictures of explanations: three formats, the same each time, with the numbers they claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from freshet.model.explain.attention import Looked
from freshet.model.explain.gradients import Gradients
from freshet.model.explain.groups import Group
from freshet.model.explain.plot import draw, plot
from freshet.model.explain.shapley import Contribution, Shapley
from freshet.model.explain.words import Explanation
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS

CONTEXT, HORIZON = 64, 24
LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def explanation(horizon: int = HORIZON, steps: range | None = None) -> Explanation:
    rng = np.random.default_rng(0)
    target = rng.poisson(10.0, CONTEXT).astype(float)
    target[:20], target[30] = np.nan, np.nan
    parts = (
        (Group("recent", "The last week's sales", many=True), 150.0),
        (Group("price", "The price"), -40.0),
    )
    quiet = (Group("event", "Holidays & events", many=True), 0.5)
    found = [Contribution(g, np.array([u, u]), np.zeros((horizon, 2))) for g, u in (*parts, quiet)]
    steps = range(horizon) if steps is None else steps
    shapley = Shapley(
        (0.5, 0.9), steps, HOUR_MS, np.array([30.0, 40.0]), np.array([140.5, 200.0]), tuple(found)
    )
    return Explanation(
        name="<shoe>",
        start_ms=0,
        cutoff_ms=CONTEXT * HOUR_MS,
        resolution_ms=HOUR_MS,
        target_T=target,
        levels=LEVELS,
        quantiles_HQ=np.sort(rng.gamma(2.0, 4.0, (horizon, len(LEVELS))), axis=1),
        total=(100.0, 140.0, 190.0),
        shapley=shapley,
        gradients=Gradients(target * 0.1, np.zeros((CONTEXT + horizon, 12)), 140.5, 0.0, 0.0),
        looked=(
            *(
                Looked(-64 + 16 * patch, -49 + 16 * patch, "past", 0.1 * (1 + patch))
                for patch in range(4)
            ),
            Looked(None, None, "item", 0.05),
            Looked(None, None, "plan", 0.05),
        ),
    )


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("b.SVG", b"<?xml"), ("c.html", b"<!doctype html>")]
)
def test_a_picture_is_written_as_its_suffix_says_and_the_same_each_time(
    tmp_path: Path, name: str, start: bytes
) -> None:
    first, again = tmp_path / name, tmp_path / f"again_{name}"
    for path in (first, again):
        plot(explanation(), path)
    assert first.read_bytes().startswith(start)
    assert first.read_bytes() == again.read_bytes()


def test_a_page_holds_the_words_and_lets_no_name_be_markup(tmp_path: Path) -> None:
    plot(explanation(), tmp_path / "e.html")
    page = (tmp_path / "e.html").read_text("utf-8")
    assert "<svg" in page and "<shoe>" not in page and "&lt;shoe&gt;: about 140 units" in page
    assert "The price takes 40 units away (-22 %)." in page
    assert "That is attention, not a cause." in page


def test_bars_lead_from_nothing_known_to_the_forecast() -> None:
    bars = draw(explanation()).axes[2]
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names == [
        "An item about which it knows nothing",
        "The last week's sales",
        "The price",
        "All else that it was told",
        "Forecast (sum of medians)",
    ]
    spans = {
        round(bar.get_y() + bar.get_height() / 2): (bar.get_x(), bar.get_x() + bar.get_width())
        for bar in bars.patches
    }
    np.testing.assert_allclose(
        [spans[row] for row in range(5)], [(0, 30), (30, 180), (180, 140), (140, 140.5), (0, 140.5)]
    )
    assert {"30", "+150", "−40", "+0.5"} <= {text.get_text() for text in bars.texts}


def test_the_history_begins_where_something_was_seen_and_darker_is_more() -> None:
    sales, looked, _ = draw(explanation()).axes
    (sold, *_), (start, _) = sales.get_lines(), sales.get_xlim()
    assert len(sold.get_xdata()) == CONTEXT - 20
    assert start * 24 == pytest.approx(20.0, abs=0.01)
    darkness = [patch.get_alpha() for patch in looked.patches]
    assert darkness == sorted(darkness) and darkness[-1] == pytest.approx(0.85)


def test_chosen_steps_are_marked_and_a_single_step_is_visible() -> None:
    labels = draw(explanation(steps=range(2, 5))).axes[0].get_legend_handles_labels()[1]
    assert "explained steps" in labels
    assert "explained steps" not in draw(explanation()).axes[0].get_legend_handles_labels()[1]
    single = draw(explanation(horizon=1)).axes[0]
    assert any(line.get_marker() == "o" for line in single.get_lines())


def test_an_item_without_history_has_a_picture_too(tmp_path: Path) -> None:
    bare = explanation()
    nothing = replace(bare.shapley, contributions=(), full_L=bare.shapley.empty_L)
    plot(
        replace(bare, target_T=np.full(CONTEXT, np.nan), shapley=nothing, looked=bare.looked[-2:]),
        tmp_path / "e.png",
    )
    assert (tmp_path / "e.png").stat().st_size > 10_000


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"end the name in \.png, \.svg, \.html"):
        plot(explanation(), Path("picture.gif"))
