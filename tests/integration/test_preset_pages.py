"""The page of each preset, followed word for word: from an empty folder to the windows it shows."""

from __future__ import annotations

import gc
import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from freshet.cli.main import app

FOLDER = Path(__file__).parent.parent.parent / "docs" / "presets"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<(\w+)$")
ASSIGNMENT = re.compile(r"\w+=")
GAP = "..."

pytestmark = pytest.mark.slow


def blocks_of(page: str) -> list[tuple[str, str]]:
    """What is typed (sh) and what is then seen (no language), in order."""
    found = BLOCK.findall((FOLDER / f"{page}.md").read_text("utf-8"))
    return [(kind, text) for kind, text in found if kind in ("sh", "")]


def statements(block: str) -> Iterator[str]:
    """Each command of a block, with its here document."""
    lines = iter(block.splitlines())
    for line in lines:
        match = HERE_DOCUMENT.search(line)
        statement = [line]
        while match is not None and statement[-1] != match[1]:
            statement.append(next(lines))
        yield "\n".join(statement)


def typed(statement: str, variables: str) -> str:
    """What a command prints; freshet's own run in this process, which spares their start."""
    if statement.startswith("freshet "):
        told = io.StringIO()
        with redirect_stdout(told):
            code = app(shlex.split(statement, comments=True)[1:], standalone_mode=False)
        assert not code, f"{statement} ended with {code}: {told.getvalue()}"
        return told.getvalue()
    command = ["bash", "-euo", "pipefail", "-c", f"{variables}{statement}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout


def shown(text: str, found: str) -> bool:
    """Whether a page shows what was printed; three dots stand for any lines, or any rest of one."""
    pattern = ""
    for line in text.strip("\n").splitlines():
        any_of_it = ".*".join(map(re.escape, line.split(GAP))) + "\n"
        pattern += r"(?:.*\n)*" if line == GAP else any_of_it
    return re.fullmatch(pattern, found.strip("\n") + "\n") is not None


@pytest.fixture
def _as_a_new_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for tool in ("kcat", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"the pages use {tool}, and there is none on PATH")
    monkeypatch.chdir(tmp_path)
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_leads_from_an_empty_folder_to_the_windows_that_it_shows(
    kafka_broker: str, redis_server: str, _as_a_new_user: None, page: str
) -> None:
    told = variables = ""
    followed = []
    for kind, block in blocks_of(page):
        if kind == "":
            assert shown(block, told), f"{page} shows\n{block}\nfound\n{told}"
            continue
        here = block.replace("localhost:9092", kafka_broker)
        here = here.replace("redis://localhost:6379/0", redis_server)
        for statement in statements(here):
            if ASSIGNMENT.match(statement):
                variables += f"{statement}\n"
                continue
            told = typed(statement, variables)
            followed.append(statement.split("\n")[0])
    assert followed[-1] == "freshet verify"
    assert told.startswith("windows and log agree"), told


def test_there_is_a_page_for_each_preset() -> None:
    from freshet.stream import presets

    named = {
        name
        for page in PAGES
        for name in re.findall(r'preset = "([\w-]+)"', (FOLDER / f"{page}.md").read_text("utf-8"))
    }
    assert named == set(presets.names())
    index = (FOLDER / "index.md").read_text("utf-8")
    assert not [page for page in PAGES if f"({page}.md)" not in index]


def test_three_dots_stand_for_any_lines_and_nothing_else_does() -> None:
    assert shown("a\n...\nd\n", "a\nb\nc\nd\n") and shown("a\n...\n", "a\n")
    assert shown("a ... c\n", "a b b c\n") and not shown("a ... c\n", "a b\nc\n")
    assert not shown("a\n...\n", "b\na\n") and not shown("a\n", "a\nb\n")
