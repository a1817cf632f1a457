"""Settings read from one TOML file, then the environment, then `*_FILE` secrets; `load` does it."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from freshet.stream.errors import ConfigError
from freshet.stream.event_settings import EventSettings, FormatSettings, TimeUnit
from freshet.stream.kafka_settings import KafkaSettings, RegistrySettings, Topics
from freshet.stream.redis_settings import RedisSettings, SentinelSettings
from freshet.stream.settings import (
    UTC,
    CalendarSettings,
    ControlSettings,
    CovariateSettings,
    DashboardSettings,
    DriftSettings,
    IngestSettings,
    LearnSettings,
    Resolution,
    ServedResolution,
    Settings,
    TelemetrySettings,
    WindowSettings,
    WorkerSettings,
)

__all__ = [
    "UTC",
    "CalendarSettings",
    "ControlSettings",
    "CovariateSettings",
    "DashboardSettings",
    "DriftSettings",
    "EventSettings",
    "FormatSettings",
    "IngestSettings",
    "KafkaSettings",
    "Known",
    "LearnSettings",
    "Loaded",
    "RedisSettings",
    "RegistrySettings",
    "Resolution",
    "SentinelSettings",
    "ServedResolution",
    "Settings",
    "TelemetrySettings",
    "TimeUnit",
    "Topics",
    "WindowSettings",
    "WorkerSettings",
    "env_name",
    "known_settings",
    "load",
    "shown",
]

ENV_PREFIX = "FRESHET_"
SECRET_SUFFIX = "_FILE"
DEFAULT_CONFIG_FILE = Path("freshet.toml")
NOT_SETTINGS = frozenset({"FRESHET_DATA", "FRESHET_FAILPOINT"})
"""What other commands and tests read from the environment."""


@dataclass(frozen=True, slots=True)
class Known:
    """One setting: its dotted name, type, default, and what it is for."""

    name: str
    annotation: Any
    default: Any
    description: str


def known_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Known]:
    """All settings in order, leaves only."""
    for name, field in model.model_fields.items():
        dotted, annotation = f"{prefix}{name}", field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from known_settings(annotation, f"{dotted}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield Known(dotted, annotation, default, field.description or "")


def env_name(dotted: str) -> str:
    """The environment's name for a setting.

    >>> env_name("kafka.bootstrap_servers")
    'FRESHET_KAFKA__BOOTSTRAP_SERVERS'
    """
    return ENV_PREFIX + dotted.upper().replace(".", "__")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for each value that is not a default, where it came from."""

    settings: Settings
    sources: dict[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A value that somebody set, and where."""

    name: str
    value: Any
    source: str


def load(config_file: Path | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read the file and the environment.

    Args:
        config_file: A TOML file; None reads `freshet.toml` if it is there.
        environ: The environment; None is the process's own.

    Raises:
        ConfigError: A file is missing or broken, a name is unknown (with the nearest known one), a
            value is wrong.
    """
    environ = os.environ if environ is None else environ
    found = [*_from_file(config_file), *_from_environ(environ)]
    # The later of two values of one setting wins: the environment's.
    values = {one.name: one.value for one in found}
    sources = {one.name: one.source for one in found}
    try:
        return Loaded(Settings(**_nest(values)), sources)
    except ValidationError as error:
        raise _config_error(error, sources) from None


def shown(settings: BaseModel, sources: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Every setting as (name, value, where from), secrets masked, for `freshet config show`."""
    rows = []
    for setting in known_settings():
        value: Any = settings
        for part in setting.name.split("."):
            value = getattr(value, part)
        rows.append((setting.name, _as_text(value), _source(setting, value, sources)))
    return rows


def _source(setting: Known, value: Any, sources: Mapping[str, str]) -> str:
    """Where a value comes from: a file, the environment, a preset, or for fields both."""
    section, _, leaf = setting.name.rpartition(".")
    own = sources.get(setting.name)
    if f"{section}.preset" not in sources or value == setting.default:
        return own or "default"
    if leaf == "fields" and own is not None:
        return f"its preset, and {own}"
    return own or "its preset"


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_as_text(item) for item in value) + "]"
    if isinstance(value, Resolution):
        return f"{value.resolution_ms} x {value.buckets}"
    return str(value)


# The file -----------------------------------------------------------------------------------------


def _from_file(config_file: Path | None) -> Iterator[Found]:
    path = config_file or DEFAULT_CONFIG_FILE
    if config_file is None and not path.exists():
        return
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"the config file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the config file {path} cannot be read: {error}") from None
    known = [setting.name for setting in known_settings()]
    for name, value in _flatten(table, known, str(path)):
        yield Found(name, value, str(path))


def _flatten(
    table: dict[str, Any], known: list[str], where: str, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """The values of a table and its sections under their dotted names."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        section = any(setting.startswith(f"{name}.") for setting in known)
        if name in known:
            yield name, value
        elif section and isinstance(value, dict):
            yield from _flatten(value, known, where, f"{name}.")
        elif section:
            raise ConfigError(
                f"{where}: {name} is a section, found {value!r}", hint=f"write [{name}]"
            )
        else:
            raise _unknown(name, known, where, str)


# The environment ----------------------------------------------------------------------------------


def _from_environ(environ: Mapping[str, str]) -> Iterator[Found]:
    known = {env_name(setting.name): setting for setting in known_settings()}
    for variable in sorted(environ.keys() - NOT_SETTINGS):
        if not variable.startswith(ENV_PREFIX):
            continue
        plain, text = variable, environ[variable]
        if variable not in known and variable.endswith(SECRET_SUFFIX):
            plain = variable.removesuffix(SECRET_SUFFIX)
            text = _secret(variable, text)
        if plain not in known:
            dotted = plain.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            names = [setting.name for setting in known.values()]
            raise _unknown(dotted, names, "environment", env_name)
        setting = known[plain]
        yield Found(setting.name, _parsed(plain, text, setting), variable)


def _secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"environment: {variable} names a file that cannot be read: {error}"
        ) from None


def _parsed(variable: str, text: str, setting: Known) -> Any:
    """Lists and tables are JSON in the environment; pydantic makes the rest of its text."""
    if get_origin(setting.annotation) not in (tuple, list, dict):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        found = "" if _secret_inside(setting.annotation) else f", found {text!r}"
        raise ConfigError(f"environment: {variable} must be JSON{found}: {error}") from None


def _secret_inside(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)


# Names and errors ---------------------------------------------------------------------------------


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to nested tables.

    >>> _nest({"a.b": 1, "a.c.d": 2})
    {'a': {'b': 1, 'c': {'d': 2}}}
    """
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, leaf = name.split(".")
        table = nested
        for part in path:
            table = table.setdefault(part, {})
        table[leaf] = value
    return nested


def _unknown(name: str, known: list[str], where: str, spelled: Callable[[str], str]) -> ConfigError:
    nearest = _nearest(name, known)
    hint = (
        "`freshet config show` lists all settings"
        if nearest is None
        else f"did you mean {spelled(nearest)}?"
    )
    return ConfigError(f"{where}: unknown setting {spelled(name)}", hint=hint)


def _nearest(name: str, known: list[str]) -> str | None:
    """The name that was meant: one as deep, else the most alike, else one whose last part is alike.

    >>> known = ["kafka.group_prefix", "worker.threads", "events.rates", "events.orders.key"]
    >>> _nearest("kafak.group", known), _nearest("threds", known), _nearest("x", known)
    ('kafka.group_prefix', 'worker.threads', None)
    >>> _nearest("event", known), _nearest("event.orders", known)
    ('events', 'events.orders')
    """
    parts = [setting.split(".") for setting in known]
    depth = name.count(".") + 1
    as_deep = {".".join(one[:depth]) for one in parts if len(one) >= depth}
    alike = difflib.get_close_matches(name, sorted(as_deep), n=1, cutoff=0.75)
    if alike:
        return alike[0]
    alike = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if alike:
        return alike[0]
    by_leaf: dict[str, str] = {}
    for setting in known:
        by_leaf.setdefault(_leaf(setting), setting)
    alike = difflib.get_close_matches(_leaf(name), by_leaf, n=1)
    return by_leaf[alike[0]] if alike else None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _config_error(error: ValidationError, sources: Mapping[str, str]) -> ConfigError:
    """What pydantic found first, with the place where that value was set."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    set_in = [
        source
        for setting, source in sources.items()
        if name == setting or name.startswith(f"{setting}.")
    ]
    source = set_in[0] if set_in else "settings"
    text = first["msg"].removeprefix("Value error, ")
    if not name:
        return ConfigError(f"{source}: {text}")
    secret = any(
        _secret_inside(known.annotation) and f"{name}.".startswith(f"{known.name}.")
        for known in known_settings()
    )
    hidden = secret or isinstance(first["input"], dict)
    found = "" if hidden else f", found {first['input']!r}"
    return ConfigError(f"{source}: {name}: {text}{found}")
