"""Finished forecasts of a comparison in a folder: an interrupted one goes on where it stopped.

A forecast's file is named by a fingerprint of everything that could change it: the panel, the
cutoffs, the levels, the model and its weights, and the code of the models. A file appears whole or
not at all.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import xxhash

from freshet.model.backtest.hierarchy import COHERENT
from freshet.model.backtest.workers import Job, WindowForecast


class Cache:
    """Forecasts in a folder, under one panel and one set of settings."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder = folder
        self._shared = _shared_fingerprint(job)

    def load(self, models: tuple[str, ...], num_windows: int) -> list[WindowForecast]:
        """Every finished forecast of these models; a file that cannot be read is made again."""
        found = []
        for model in models:
            for index in range(num_windows):
                # A half-written or foreign file is no forecast.
                with contextlib.suppress(OSError, ValueError, KeyError, EOFError):
                    found.append(self._read(model, index))
        return found

    def save(self, forecast: WindowForecast) -> None:
        """Keep a forecast."""
        assert forecast.quantiles_NHQ is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(forecast.model, forecast.index)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("wb") as file:
            seconds = np.array([forecast.fit_s, forecast.predict_s])
            np.savez(file, quantiles=forecast.quantiles_NHQ, seconds=seconds)
        draft.replace(path)

    def _read(self, model: str, index: int) -> WindowForecast:
        with np.load(self._path(model, index), allow_pickle=False) as kept:
            fit_s, predict_s = kept["seconds"].tolist()
            return WindowForecast(model, index, kept["quantiles"], fit_s, predict_s)

    def _path(self, model: str, index: int) -> Path:
        text = f"{self._shared}|{model}|{_weights_fingerprint(model)}|{index}"
        digest = xxhash.xxh3_128(text.encode())
        slug = "".join(letter if letter.isalnum() else "-" for letter in model)[:40]
        return self._folder / f"{slug}-{index}-{digest.hexdigest()}.npz"


def _shared_fingerprint(job: Job) -> str:
    digest = xxhash.xxh3_128()
    for field in fields(job.panel):
        value = getattr(job.panel, field.name)
        digest.update(f"{field.name}:".encode())
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
        else:
            digest.update(repr(_plain(value)).encode())
    digest.update(repr((job.rolling, job.levels, job.fine_tune, _code_fingerprint())).encode())
    return digest.hexdigest()


def _plain(value: object) -> object:
    """A value whose text is complete: numpy shortens long arrays."""
    if isinstance(value, dict):
        return {
            name: entry.tolist() if isinstance(entry, np.ndarray) else entry
            for name, entry in value.items()
        }
    return value


def _code_fingerprint() -> str:
    """Every source and weights file of the models: other code's results are not this one's."""
    root = Path(__file__).parent.parent
    digest = xxhash.xxh3_128()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.safetensors")]):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _weights_fingerprint(model: str) -> str:
    """The content of the folders in a name such as "naive+freshet:FOLDER"."""
    digest = xxhash.xxh3_128()
    for part in model.split("+"):
        _, _, place = part.removeprefix(COHERENT).partition(":")
        for path in sorted(Path(place).glob("*")) if place else []:
            if path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()
