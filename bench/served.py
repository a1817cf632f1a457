"""Is what is served as good as what is measured? A foreign client's answer.

Tables of sales go through a real Kafka (KAFKA_HOME) and a real Redis into `freshet ingest` and
`freshet worker`, cutoff by cutoff; committed forecasts are read off the topic and scored beside
`freshet backtest` on the same cutoffs and items: with all it may know, told nothing but the sales,
LightGBM, and the seasonal naive. Sent is what a shop knows: catalogue, promotions, closed days and
holidays as covariates; opening hours and country are settings. Days that a table lacks are not
announced as closed. An order of an item of its own in every partition shows that a cutoff has
passed, also where the next day is closed. Nothing of freshet is imported, its commands are run.

WQL is over the levels .1 .5 .9, all cutoffs pooled. SQL is as in docs/accuracy.md, .1 to .9 and the
mean over cutoffs; the levels that forecasts on the topic lack are interpolated as of a normal.
Raw files: FRESHET_DATA, as for `freshet data prepare`.

Run: KAFKA_HOME=... python -m bench.served [SET ...] [--quick] [--items N] [--cutoffs N] [--keep D]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from bench.foreign.cases import CASES, FRESHET, Case, freshet
from bench.foreign.client import LEVELS, LONGEST_S, Reader, Shop, ms, orders, wide_of
from bench.report import RESULTS, write_result

MODELS = {"freshet": "backtest", "lightgbm": "lightgbm", "seasonal_naive": "naive"}
WQL_LEVELS = (0.1, 0.5, 0.9)
QUICK = ("rossmann_daily", "dunnhumby_daily")
START_S = 90.0
Forecasts = dict[tuple[pd.Timestamp, str], np.ndarray]


@contextmanager
def process(
    command: list[str], log: Path, environ: Mapping[str, str], ready: str
) -> Iterator[None]:
    """A process, from when its log says that it is ready; ended with the block."""
    with log.open("wb") as output:
        env = {**os.environ, **environ}
        child = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        deadline_s = time.monotonic() + START_S
        while ready not in log.read_text("utf-8", "replace"):
            if child.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"no {ready!r} in {log}: {log.read_text()[-2_000:]}")
            time.sleep(0.1)
        yield
    finally:
        child.terminate()
        child.wait(60)


def free_port() -> int:
    """A port that nobody uses, nor the one after it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(case: Case, frame: pd.DataFrame, folder: Path) -> tuple[Forecasts, dict[str, Any]]:
    """What was served at each cutoff, and what it took."""
    kafka_port, redis_port = free_port(), free_port()
    resolution = {"resolution_ms": int(case.step.total_seconds() * 1_000), "score_steps": [1]}
    resolution |= {"prediction_length": case.horizon, "season_length": case.season}
    environ = {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka_port}",
        "FRESHET_REDIS__URL": f"redis://127.0.0.1:{redis_port}/0",
        "FRESHET_LEARN__REGISTRY": str(folder / "registry"),
        # Else a log quiet for 30 s counts as having reached today: past cutoffs are passed over.
        "FRESHET_WINDOWS__IDLE_MS": str(10**11),
        "FRESHET_WORKER__RESOLUTIONS": json.dumps([resolution]),
        **case.settings,
    }
    kafka = [
        f"{os.environ['KAFKA_HOME']}/bin/kafka-single.sh",
        str(folder / "kafka"),
        str(kafka_port),
    ]
    redis = ["redis-server", "--port", str(redis_port), "--dir", str(folder), "--save", ""]
    with ExitStack() as stack:

        def run(command: list[str], log: str, environ: Mapping[str, str], ready: str) -> None:
            stack.enter_context(process(command, folder / log, environ, ready))

        run(kafka, "kafka.log", {}, "Kafka Server started")
        run(redis, "redis.log", {}, "Ready to accept connections")
        freshet("topics", "create", environ=environ)
        run([*FRESHET, "ingest"], "ingest.log", environ, "started")
        run([*FRESHET, "worker"], "worker.log", environ, "started")
        served, took = sell_through(case, frame, environ["FRESHET_KAFKA__BOOTSTRAP_SERVERS"])
    said = [complaints(folder / f"{name}.log") for name in ("ingest", "worker")]
    return served, {**took, "warnings": dict(said[0] + said[1])}


def complaints(log: Path) -> Counter[str]:
    """How often a process warned of what."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return Counter(line["event"] for line in lines if line["level"] in ("warning", "error"))


def serve_once(case: Case, frame: pd.DataFrame, folder: Path) -> tuple[Forecasts, dict[str, Any]]:
    """What was served, from the folder where an earlier run left it."""
    path = folder / f"served-{case.cutoffs}-{frame.id.nunique()}.pickle"
    if path.exists():
        return pd.read_pickle(path)  # type: ignore[no-any-return]
    found = serve(case, frame, folder)
    pd.to_pickle(found, path)
    return found


def sell_through(case: Case, frame: pd.DataFrame, servers: str) -> tuple[Forecasts, dict[str, Any]]:
    """Announce, then sell up to each cutoff in turn and read what was forecast there."""
    shop, reader = Shop(servers), Reader(servers)
    began_s = time.monotonic()
    shop.announce(case, frame)
    announced_s = time.monotonic() - began_s
    lines = orders(case, frame)
    served: Forecasts = {}
    rounds = []
    begin_ms = 0
    for cut in case.cuts(frame):
        shop.sell(lines[(lines["at"] >= begin_ms) & (lines["at"] < ms(cut))])
        shop.open_till(cut)
        begin_ms = ms(cut)
        items = lines.id[lines["at"] < ms(cut)].nunique()
        first_s, last_s = reader.wait(ms(cut), items)
        found = reader.found.get(ms(cut), {})
        if not found:
            raise SystemExit(f"nothing was served at {cut} within {LONGEST_S:.0f} s")
        served |= {(cut, name): quantiles for name, quantiles in found.items()}
        status = dict(reader.status.get(ms(cut), {}))
        rounds.append({"cutoff": str(cut), "items": items, "served": len(found), "status": status})
        rounds[-1] |= {"first_s": round(first_s, 1), "last_s": round(last_s, 1)}
        print(rounds[-1], flush=True)
    took_s = round(time.monotonic() - began_s, 1)
    return served, {
        "sent": dict(shop.sent),
        "announced_s": round(announced_s, 1),
        "took_s": took_s,
        "rounds": rounds,
    }


# Backtests and scores -----------------------------------------------------------------------------


def command_of(case: Case, path: Path, models: str, *, told: bool) -> list[str]:
    """The backtest of a table, with all that it may know or with the sales alone."""
    command = ["backtest", "--data", str(path), "--item-id", "id", "--time", "timestamp"]
    command += ["--target", "target", "--frequency", case.frequency]
    command += ["--prediction-length", str(case.horizon), "--windows", str(case.cutoffs)]
    command += ["--season-length", str(case.season), "--models", models, "--fine-tune", "none"]
    for option in ("known", "past", "static"):
        columns = getattr(case, option)
        if told and columns:
            command += [f"--{option}", ",".join(columns)]
    return command


def measured(
    case: Case, frame: pd.DataFrame, folder: Path, models: str, *, told: bool
) -> dict[str, Forecasts]:
    """Forecasts of a backtest by model; at each cutoff apart where windows retain less."""
    if case.retained:
        found: dict[str, Forecasts] = {}
        for cut in case.cuts(frame):
            begin, end = cut - case.step * case.retained, cut + case.step * case.horizon
            part = frame[(frame.timestamp >= begin) & (frame.timestamp < end)]
            alone = replace(case, cutoffs=1, retained=0)
            for model, forecasts in measured(alone, part, folder, models, told=told).items():
                found.setdefault(model, {}).update(forecasts)
        return found
    table, output = folder / "table.parquet", folder / "forecasts.parquet"
    frame.to_parquet(table, index=False)
    options = ["--cache", folder / "cache", "--forecasts", output]
    freshet(*command_of(case, table, models, told=told), *options)
    return by_model(case, pd.read_parquet(output))


def by_model(case: Case, made: pd.DataFrame) -> dict[str, Forecasts]:
    """Forecasts of a long table, in arrays."""
    made = made.sort_values(["model", "cutoff", "item_id", "timestamp"], kind="stable")
    values = made[[str(level) for level in LEVELS]].to_numpy(float)
    heads = made.iloc[:: case.horizon]
    found: dict[str, Forecasts] = {}
    keys = zip(heads.model.astype(str), heads.cutoff, heads.item_id.astype(str), strict=True)
    every = values.reshape(len(heads), case.horizon, len(LEVELS))
    for (model, cutoff, name), quantiles in zip(keys, every, strict=True):
        # A backtest names a cutoff by the last step seen, the topic by that step's end.
        found.setdefault(model, {})[pd.Timestamp(cutoff) + case.step, name] = quantiles
    return found


def scores(
    case: Case, wide: pd.DataFrame, forecasts: Forecasts, cuts: list[pd.Timestamp]
) -> dict[str, float]:
    """WQL over all cutoffs together, and the mean SQL of the cutoffs."""
    loss = sold = 0.0
    sql = []
    for cut in cuts:
        names = sorted(name for at, name in forecasts if at == cut)
        times = pd.date_range(cut, periods=case.horizon, freq=case.step)
        actual_NH = wide.reindex(index=times, columns=names).to_numpy(float).T
        quantiles_NHQ = np.array([forecasts[cut, name] for name in names])
        error_NHQ = actual_NH[..., None] - quantiles_NHQ
        levels = np.array(LEVELS)
        loss_NHQ = 2 * np.maximum(levels * error_NHQ, (levels - 1) * error_NHQ)
        few = [LEVELS.index(level) for level in WQL_LEVELS]
        loss += float(np.nansum(loss_NHQ[..., few].mean(-1)))
        sold += float(np.nansum(np.abs(actual_NH)))
        past = wide.loc[: cut - case.step, names].to_numpy(float)
        gaps = np.abs(past[case.season :] - past[: -case.season])
        pairs = np.maximum(np.isfinite(gaps).sum(0), 1)
        unit_N = np.nansum(gaps, 0) / pairs
        usable = unit_N > 0
        sql.append(np.nanmean(loss_NHQ.mean(-1)[usable] / unit_N[usable, None]))
    return {"wql": round(loss / sold, 4), "sql": round(float(np.mean(sql)), 4)}


def compare(case: Case, folder: Path, items: int) -> dict[str, Any]:
    """One table served and measured, scored on the same cutoffs and items."""
    frame = case.make(folder).assign(id=lambda table: table.id.astype(str))
    if items:
        largest = frame.groupby("id").target.sum().nlargest(items).index
        frame = frame[frame.id.isin(largest)]
    if case.retained:
        begin = case.cuts(frame)[0] - case.step * case.retained
        frame = frame[frame.timestamp >= begin]
    served, took = serve_once(case, frame, folder)
    every = {"served": served}
    told = measured(case, frame, folder, ",".join(MODELS), told=True)
    every |= {MODELS[model]: forecasts for model, forecasts in told.items()}
    every["bare"] = measured(case, frame, folder, "freshet", told=False)["freshet"]
    common = set.intersection(*(set(forecasts) for forecasts in every.values()))
    wide = wide_of(case, frame, "target")
    cuts = case.cuts(frame)
    found: dict[str, Any] = {
        "items": frame.id.nunique(),
        "horizon": case.horizon,
        "cutoffs": case.cutoffs,
        "scored": len(common),
        "measured": len(every["backtest"]),
        "code": code(),
        "backtest_command": " ".join(command_of(case, Path("TABLE"), "freshet", told=True)),
    }
    for part, some in {"all": cuts, "last_3": cuts[-3:]}.items():
        alike = {key for key in common if key[0] in some}
        rows = {
            name: scores(case, wide, {key: forecasts[key] for key in alike}, some)
            for name, forecasts in every.items()
        }
        ratio = round(rows["served"]["wql"] / rows["backtest"]["wql"], 3)
        found[part] = {**rows, "ratio": ratio}
    return {**found, **took}


def code() -> str:
    """The commit that was measured, as far as there is one."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Measure, print and, unless tables were cut short, write bench/results/served.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="60 items and two cutoffs.")
    parser.add_argument("--items", type=int, default=0, help="The largest so many; 0: all.")
    parser.add_argument("--cutoffs", type=int, default=0, help="The last so many; 0: all.")
    parser.add_argument("--keep", type=Path, help="Folder for tables, forecasts and logs.")
    given = parser.parse_args()
    if not os.environ.get("KAFKA_HOME"):
        parser.error("set KAFKA_HOME to the folder of an unpacked Kafka")
    if unknown := set(given.sets) - set(CASES):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    items = given.items or (60 if given.quick else 0)
    cutoffs = given.cutoffs or (2 if given.quick else 0)
    for name in given.sets or (QUICK if given.quick else CASES):
        case = replace(CASES[name], cutoffs=cutoffs or CASES[name].cutoffs)
        with TemporaryDirectory() as scratch:
            folder = (given.keep or Path(scratch)) / name
            shutil.rmtree(folder / "kafka", ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            found = compare(case, folder, items)
        print(json.dumps({name: found}, indent=2), flush=True)
        if not (items or cutoffs):
            keep(name, found)


def keep(name: str, found: dict[str, Any]) -> None:
    """Put a set's numbers beside those of the others; the first backtest of a set is its floor."""
    path = RESULTS / "served.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    floors = before.get("floors", {})
    floor: dict[str, Any] = {part: found[part]["backtest"] for part in ("all", "last_3")}
    floor |= {"command": found["backtest_command"], "code": found["code"]}
    floors.setdefault(name, floor)
    sets = {**before.get("sets", {}), name: found}
    print(write_result("served", {"floors": floors, "sets": sets}, ["torch", "lightgbm", "numpy"]))


if __name__ == "__main__":
    main()
