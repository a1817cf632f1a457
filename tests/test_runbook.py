"""The runbook has a line for every message that asks a person to act, collected from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDERS = ("stream", "online", "dashboard")
LEVELS = {"warning", "error", "exception", "critical"}

# What these say, they say to the person who typed a command, and say all there is to do.
COMMANDS = (
    "stream/ops/",
    "stream/verify/",
    "stream/read/export.py",
    "stream/files/",
    "stream/source/replay/",
    "stream/kafka/servers.py",  # servers of the demo and of tests
    "stream/store/server.py",
    "online/demo/",
    "online/weights/versions.py",
)
A_FEW_WORDS = 12
PASSED_ON = ("error.message",)  # The message of an error that is collected where it is made.


@cache
def runbook() -> str:
    return " ".join((ROOT / "docs/runbook.md").read_text("utf-8").split())


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of a process, by its path."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {
        name: ast.parse(path.read_text("utf-8"))
        for name, path in found.items()
        if not name.startswith(COMMANDS)
    }


def calls() -> Iterator[tuple[str, ast.Call, dict[str, list[str]]]]:
    """Every call: its place, itself, and what texts the names of its module were given."""
    for path, tree in sources().items():
        named: dict[str, list[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                named.setdefault(node.targets[0].id, []).append(longest(node.value, {}))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{path}:{node.lineno}", node, named


def texts(node: ast.AST) -> Iterator[str]:
    """The parts of a text that are the same each time, in order."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.FormattedValue):
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def longest(node: ast.expr, named: dict[str, list[str]]) -> str:
    """The longest part of a text that is the same each time; "" where there is none.

    Where that is a word or two, all such parts, `...` between them.
    """
    if isinstance(node, ast.Name):
        return max(named.get(node.id, [""]), key=len)
    parts = list(texts(node))
    most = " ".join(max(parts, key=len, default="").split())
    return most if len(most) >= A_FEW_WORDS else "...".join(parts)


def quoted(text: str) -> bool:
    """Whether the runbook has a text, with something short in place of each `...`."""
    pattern = ".{1,60}?".join(map(re.escape, text.split("...")))
    return re.search(pattern, runbook()) is not None


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def argument(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def errors_with_a_hint() -> dict[str, str]:
    """What a process ends with, or waits with, and says what to do: message by place."""
    found = {}
    for place, call, named in calls():
        hint = argument(call, "hint")
        if hint is None or not call.args or not name_of(call).endswith("Error"):
            continue
        if ast.unparse(call.args[0]) not in PASSED_ON:
            found[place] = longest(call.args[0], named) or longest(hint, named)
            assert found[place], f"{place}: nothing of this message is known here"
    return found


def log_events() -> dict[str, str]:
    """Events of our own log lines from warning up, by place."""
    return {
        place: longest(call.args[0], named)
        for place, call, named in calls()
        if name_of(call) in LEVELS and ast.unparse(call.func).startswith("log.")
    }


def titles() -> dict[str, str]:
    """Titles of alerts on the alerts topic, by place."""
    return {
        place: longest(title, named)
        for place, call, named in calls()
        if place.startswith(("stream/ingest", "online/")) and (title := argument(call, "title"))
        if longest(title, named)
    }


def troubles() -> dict[str, str]:
    """What `/readyz` says in words of its own, by place."""
    return {
        place: text
        for place, call, named in calls()
        if name_of(call) == "say" and "health" in ast.unparse(call.func)
        if (text := longest(call.args[-1], {}))
    }


def prometheus_alerts() -> set[str]:
    loaded = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))
    return {rule["alert"] for group in loaded["groups"] for rule in group["rules"]}


def test_a_message_is_known_by_the_longest_part_that_is_the_same_each_time() -> None:
    text = ast.parse("f'no broker at {where} within {wait_s} s'", mode="eval").body
    assert longest(text, {}) == "no broker at"
    text = ast.parse("f'reading {place}: {error}'", mode="eval").body
    assert longest(text, {}) == "reading ...: "
    assert longest(ast.Name("hint"), {"hint": ["", "start it"]}) == "start it"


def test_every_exception_is_still_there() -> None:
    assert all((ROOT / path).exists() for path in COMMANDS)


@pytest.mark.parametrize(
    ("collected", "least"),
    [(errors_with_a_hint, 30), (titles, 4), (troubles, 2)],
    ids=["errors", "titles", "readyz"],
)
def test_every_message_is_quoted_in_the_runbook(
    collected: Callable[[], dict[str, str]], least: int
) -> None:
    found = collected()
    assert len(found) >= least, "the collection itself is broken"
    missing = {place: text for place, text in found.items() if not quoted(text)}
    assert not missing, "\n".join(f"{place}: {text}" for place, text in missing.items())


def test_every_line_of_the_log_that_is_no_mere_news_has_its_line_in_the_runbook() -> None:
    table = (ROOT / "docs/runbook.md").read_text("utf-8").partition("## Lines of the log")[2]
    cells = re.findall(r"^\| (`.+?) \|", table.partition("\n## ")[0], re.MULTILINE)
    told = {event for cell in cells for event in re.findall(r"`([a-z_]+)`", cell)}
    assert told == set(log_events().values())


def test_every_alert_of_prometheus_is_named_in_the_runbook_and_no_other() -> None:
    assert set(re.findall(r"`(Freshet[A-Z][A-Za-z]+)`", runbook())) == prometheus_alerts()
