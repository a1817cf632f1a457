"""Write the pages that come from the code: configuration.md and a JSON Schema for each record.

`python -m docs.generate` writes them; `python -m docs.generate --check` exits 1 when they are not
current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from freshet.stream import schemas
from freshet.stream.config import (
    Known,
    Resolution,
    ServedResolution,
    Settings,
    env_name,
    known_settings,
)

DOCS = Path(__file__).parent
HEAD = """# Configuration

Generated from `stream/settings.py` by `make docs`; do not edit.

One TOML file (`--config FILE`, else `freshet.toml` if it is there), then the environment, which
wins. A name in the environment is `FRESHET_SECTION__NAME`; lists and tables are JSON there. Any
variable may end in `_FILE` and then names a file that holds the value, for secrets. An unknown name
is an error that names the nearest known one.
`freshet config show` prints every value and where it came from.
"""

TABLE_HEAD = "| setting | default | environment | meaning |\n|---|---|---|---|"


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file with its text."""
    yield DOCS / "configuration.md", configuration()
    for kind, record in {**schemas.RECORDS, **schemas.BESIDE}.items():
        yield DOCS / "schemas" / f"{kind}.json", json.dumps(schema(kind, record), indent=2) + "\n"


def configuration() -> str:
    """The page of all settings, one table a section."""
    parts, section = [HEAD], ""
    for setting in known_settings():
        name, leaf = setting.name.rsplit(".", 1)
        if name != section:
            section = name
            parts.append(f"\n## {section}\n\n{_about(section)}\n\n{TABLE_HEAD}")
        parts.append(_row(leaf, setting))
    return "\n".join(parts) + "\n"


def _about(section: str) -> str:
    model: Any = Settings
    for part in section.split("."):
        model = model.model_fields[part].annotation
    return " ".join((model.__doc__ or "").split())


def _row(leaf: str, setting: Known) -> str:
    default = setting.default
    if isinstance(default, tuple):
        default = "[" + ", ".join(_cell(item) for item in default) + "]"
    return f"| `{leaf}` | `{_cell(default)}` | `{env_name(setting.name)}` | {setting.description} |"


def _cell(value: Any) -> str:
    if isinstance(value, Resolution):
        return f"{value.resolution_ms} x {value.buckets}"
    if isinstance(value, ServedResolution):
        return f"{value.resolution_ms} x {value.prediction_length}"
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return text or '""'


def schema(kind: str, record: type[schemas.Record]) -> dict[str, Any]:
    """JSON Schema (2020-12) of one topic's value."""
    made = msgspec.json.schema(record)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"freshet.{kind}.v1",
        **made,
    }


def main() -> None:
    stale = [path for path, text in pages() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        sys.exit(f"not current, run `make docs`: {', '.join(map(str, stale))}" if stale else None)
    for path, text in pages():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
