"""`freshet doctor`: every check of the stream, and those of weights, device, registry and ports."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

from freshet.model.checkpoint import BASE_WEIGHTS, HORIZON_MAX, check_whole
from freshet.online.weights.registry import BASE, open_registry
from freshet.stream.clock import wall_now_ms
from freshet.stream.config import Settings
from freshet.stream.ops.doctor import Check, Examination, Probe
from freshet.stream.ops.kafka_checks import (
    check_broker,
    check_broker_clock,
    check_history,
    check_ingest,
    check_registry,
    check_retention,
    check_sign_in,
    check_topics,
    check_worker,
)
from freshet.stream.ops.record_checks import check_events, check_tables
from freshet.stream.ops.redis_checks import check_books, check_clock, check_redis, check_windows

ANSWER_WITHIN_MS: Final = 3_000
ASK_PORT_S: Final = 1.0
AT_HAND: Final = {"auto": "auto: a GPU where there is one, else the CPU", "cpu": "cpu"}
"""Devices that every machine has."""


def line_of(check: Check) -> str:
    """A finding as a person reads it: what, and after the semicolon the way out."""
    hint = f"; {check.hint}" if check.hint else ""
    return f"{check.state:<7}  {check.name}: {check.message}{hint}"


def examine(
    settings: Settings,
    now_ms: Callable[[], int] = wall_now_ms,
    only: Collection[str] | None = None,
) -> Iterator[Check]:
    """Everything that freshet depends on, each finding as it comes.

    Args:
        settings: What to look at.
        now_ms: This machine's clock.
        only: Names of checks; those that they need are made too. None is all.
    """
    probes = probes_of(_hurried(settings), now_ms)
    if only is not None:
        needed = {need for probe in probes if probe.name in only for need in probe.needs}
        probes = [probe for probe in probes if probe.name in needed.union(only)]
    return Examination(probes).findings()


def _hurried(settings: Settings) -> Settings:
    """With waits that leave time for what else is to be asked."""
    kafka, redis, registry = settings.kafka, settings.redis, settings.kafka.registry
    asked = {"timeout_ms": min(registry.timeout_ms, ANSWER_WITHIN_MS)}
    quick = {
        "request_timeout_ms": min(kafka.request_timeout_ms, ANSWER_WITHIN_MS),
        "registry": registry.model_copy(update=asked),
    }
    patience = {"timeout_ms": min(redis.timeout_ms, ANSWER_WITHIN_MS)}
    return settings.model_copy(
        update={"kafka": kafka.model_copy(update=quick), "redis": redis.model_copy(update=patience)}
    )


def probes_of(settings: Settings, now_ms: Callable[[], int]) -> Sequence[Probe]:
    """All checks, and what each of them needs."""
    kafka, redis = "kafka", "redis"
    both = (kafka, redis)

    def probe(name: str, look: Callable[..., Iterator[Check] | list[Check]], *of: object) -> Probe:
        return Probe(name, partial(look, settings, *of))

    def after(needs: tuple[str, ...], one: Probe) -> Probe:
        return Probe(one.name, one.look, needs, one.late)

    return [
        probe(redis, check_redis),
        probe(kafka, check_broker),
        probe("sign-in", check_sign_in),
        probe("ports", check_ports),
        probe("registry", check_folder),
        probe("schema registry", check_registry),
        after((redis,), probe("clock", check_clock, now_ms)),
        after((kafka,), probe("topics", check_topics)),
        after((kafka,), probe("retention", check_retention)),
        after((kafka,), probe("orders", check_events, "orders")),
        after((kafka,), probe("clicks", check_events, "clicks")),
        after(both, probe("tables", check_tables)),
        after(both, probe("windows", check_windows)),
        after(both, probe("books", check_books)),
        after(both, probe("ingest", check_ingest)),
        after((redis,), probe("history", check_history)),
        after(both, probe("worker", check_worker)),
        after(both, probe("broker's clock", check_broker_clock, now_ms)),
        probe("weights", check_weights),
        # A GPU's library takes seconds to load on a busy machine, which is no fault of its.
        Probe("device", partial(check_device, settings), late="warning"),
    ]


# Ports --------------------------------------------------------------------------------------------


def check_ports(settings: Settings) -> Iterator[Check]:
    """Whether the ports that are set are free, or already freshet's own."""
    host = settings.telemetry.http_host
    sections = {name: getattr(settings, name) for name in ("ingest", "worker", "control", "learn")}
    wanted = [(name, host, int(section.http_port)) for name, section in sections.items()]
    wanted.append(("dashboard", settings.dashboard.host, settings.dashboard.port))
    for name, at, port in wanted:
        if port == 0:
            continue
        if _is_free(at, port):
            yield Check("ports", "ok", f"{port} is free for {name}")
        elif _is_ours(at, port):
            yield Check("ports", "ok", f"freshet answers on {port}, which is {name}'s")
        else:
            text = f"{port} of {name} is taken by another program"
            yield Check("ports", "problem", text, "choose another port, or end that program")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((host, port))
        except OSError:
            return False
    return True


def _is_ours(host: str, port: int) -> bool:
    """Whether what listens there has our probes."""
    at = f"[{host}]" if ":" in host else host
    try:
        with urlopen(f"http://{at}:{port}/livez", timeout=ASK_PORT_S) as answer:
            return bool(answer.read(3) == b"ok\n")
    except HTTPError as error:
        return error.code == 503
    except (OSError, ValueError, HTTPException):
        return False


# Weights ------------------------------------------------------------------------------------------


def check_folder(settings: Settings) -> Iterator[Check]:
    """Whether learn can write to the registry, and what of it is passed over."""
    folder = settings.learn.registry
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        text = f"learn cannot write to {folder}: {error.strerror or error}"
        yield Check("registry", "problem", text, f"mount it, or mend the rights of {there}")
        return
    for flaw in open_registry(settings.learn).survey()[1]:
        text = f"{flaw.name} is passed over: {flaw.reason}"
        yield Check("registry", "warning", text, "`freshet model verify` checks every file")
    yield Check("registry", "ok", f"{folder} can be written")


def check_weights(settings: Settings) -> Iterator[Check]:
    """Whether the weights that would serve are whole, by their files alone."""
    furthest = max(settings.served, key=lambda served: served.prediction_length)
    if furthest.prediction_length > HORIZON_MAX:
        text = f"{furthest.prediction_length} steps of {furthest.resolution_ms} ms are asked for"
        hint = f"the most is {HORIZON_MAX}: lower prediction_length, or take longer steps"
        yield Check("weights", "problem", text, hint)
    registry, pinned = open_registry(settings.learn), settings.worker.weights
    if pinned:
        yield Check("weights", "ok", f"{pinned} ({check_whole(Path(pinned))[:12]}) is whole")
        return
    champion = registry.champion()
    for version in champion.versions:
        folder = BASE_WEIGHTS
        if version != BASE:
            registry.verify(version)
            folder = registry.path(version)
        whom = f", for {', '.join(champion.segments)}" if version == champion.other else ""
        yield Check("weights", "ok", f"{version} ({check_whole(folder)[:12]}) is whole{whom}")


def check_device(settings: Settings) -> Iterator[Check]:
    """Whether the devices that are asked for are there, and compute."""
    names = {settings.worker.device, settings.learn.device}
    # Only what may be missing is worth the seconds that its library takes to load.
    for name in sorted(names & AT_HAND.keys()):
        yield Check("device", "ok", AT_HAND[name])
    for name in sorted(names - AT_HAND.keys()):
        yield _computes(name)


def _computes(name: str) -> Check:
    import torch

    from freshet.model.devices import OTHERS, pick_device

    device = pick_device(name)
    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError as error:
        text = f"{device} does not compute: {str(error).splitlines()[0]}"
        return Check("device", "problem", text, OTHERS)
    return Check("device", "ok", device)
