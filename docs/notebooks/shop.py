"""The cells of the notebook that goes from a shop's frame to forecasts and their reasons."""

# %% [markdown]
# # A shop's forecasts, from a data frame to the reasons
#
# Twelve items of a small shop, two years by day: a level each, a week, a year, promotions at a
# lower price. The data are made here, so that everything runs as it stands, and so that what the
# forecasts should have found is known. No Kafka, no Redis and no GPU are needed, only the
# package: `pip install` with the path of a checkout, or of a wheel of it.

# %%
import numpy as np
import pandas as pd

import freshet

rng = np.random.default_rng(7)
days = pd.date_range("2023-01-01", "2024-12-31", name="timestamp")
AHEAD = 28


def item(number: int) -> pd.DataFrame:
    """Sales of one item: three for one while its price is a quarter lower."""
    promo = (np.arange(len(days)) + 11 * number) % 40 < 6
    week = np.array([0.8, 0.8, 0.9, 1.0, 1.3, 1.6, 0.6])[days.dayofweek]
    year = 1.0 + 0.25 * np.sin(2 * np.pi * (days.dayofyear - 80) / 365)
    mean = 6.0 * (1 + number % 4) * week * year * np.where(promo, 3.0, 1.0)
    sold = rng.negative_binomial(12, 12 / (12 + mean)).astype(float)
    price = np.where(promo, 7.5, 10.0)
    family = ["bread", "cheese", "wine"][number % 3]
    columns = {"target": sold, "price": price, "promo": promo * 1.0, "family": family}
    return pd.DataFrame({"item_id": f"item-{number:02d}", "timestamp": days, **columns})


table = pd.concat([item(number) for number in range(12)], ignore_index=True)
table.head(3)

# %% [markdown]
# ## Forecast
#
# The last four weeks are kept back: they are the plan (prices and promotions are known in advance)
# and, later, the judge. Columns that the frame of the past and that of the future share are taken
# as known ahead.

# %%
cutoff = days[-AHEAD]
past, ahead = table[table.timestamp < cutoff], table[table.timestamp >= cutoff]
plan = ahead[["item_id", "timestamp", "price", "promo"]]

forecaster = freshet.Forecaster.from_pretrained()
forecasts = forecaster.predict(past, future_df=plan, static=["family"])
forecasts.head(3)

# %%
figure = forecaster.plot(past.groupby("item_id").tail(120), forecasts, items=["item-04", "item-05"])
figure

# %% [markdown]
# ## How good is it?
#
# `cross_validation` forecasts from earlier cutoffs, each by what was known then. The yardstick is
# the same day a week before.

# %%
known = {"known": ["price", "promo"], "static": ["family"]}
judged = forecaster.cross_validation(table, AHEAD, n_windows=3, **known)
sold = table.set_index(["item_id", "timestamp"]).target
weeks = np.ceil((judged.timestamp - judged.cutoff).dt.days / 7).astype(int)
before = judged.timestamp - pd.to_timedelta(7 * weeks, unit="D")
judged["week_before"] = sold.reindex(pd.MultiIndex.from_arrays([judged.item_id, before])).to_numpy()


def error(column: str) -> float:
    """Absolute error over all that was sold."""
    return float((judged[column] - judged.target).abs().sum() / judged.target.sum())


inside = judged.target.between(judged["0.1"], judged["0.9"]).mean()
scores = {"forecasts": error("predictions"), "the week before": error("week_before")}
print({name: round(value, 3) for name, value in scores.items()})
print(f"{100 * inside:.0f} % in the range of 80 %")

# %% [markdown]
# ## An item that never sold
#
# Without a past the forecast is what its siblings sell, here those of its family, and `status` says
# so.

# %%
new = pd.DataFrame({"item_id": ["new"], "timestamp": [past.timestamp.max()], "family": ["cheese"]})
with_new = pd.concat([past, new], ignore_index=True)
first = forecaster.predict(with_new, 7, static=["family"]).set_index("item_id").loc["new"]
first[["timestamp", "predictions", "0.1", "0.9", "status"]]

# %% [markdown]
# ## Why?
#
# A forecast is taken apart into what each kind of input adds: exact Shapley values, which add up to
# it. Here the six days of a promotion that begins within the horizon; it was made to sell three for
# one.

# %%

from freshet.model.explain.item import Question, answer
from freshet.model.explain.plot import draw
from freshet.model.tables.table import Columns, TableSettings

columns = Columns("item_id", "timestamp", "target", ("price", "promo"), static=("family",))
promoted = np.flatnonzero(plan[plan.item_id == "item-05"].promo) + 1
steps = f"{promoted[0]}:{promoted[-1]}"
question = Question("item-05", AHEAD, steps, future=plan)
found = answer(past, TableSettings(columns, "D"), question, None)
print("\n".join(found.sentences()))

# %%
draw(found.explanation)

# %% [markdown]
# ## Further
#
# * `forecaster.fit(past, 28, known=["price", "promo"])` gives a copy that learnt from the table.
# * [What goes in and comes out](../tables.md), [how accurate it is](../accuracy.md) on public data.
# * The same on the command line: `freshet predict`, `freshet backtest`, `freshet explain`.
