"""Pages that come from the code are current, links lead somewhere, and figures come from result
files.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import typer.main

from docs.generate import pages, schema
from docs.notebook import FOLDER, notebook
from freshet.cli.main import app
from freshet.stream.config import Topics, known_settings
from freshet.stream.schemas import BESIDE, RECORDS

ROOT = Path(__file__).parent.parent
WRITTEN = {**RECORDS, **BESIDE}
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    ("path", "text"), list(pages()), ids=lambda value: getattr(value, "name", "")
)
def test_a_generated_page_is_current(path: Path, text: str) -> None:
    assert path.read_text("utf-8") == text, "run `make docs`"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_a_notebook_has_the_cells_of_its_file_with_their_outputs(path: Path) -> None:
    kept = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))
    outputs = [cell["outputs"] for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert kept == notebook(path, outputs), "run `python -m docs.notebook`"
    shown = [output for some in outputs for output in some]
    assert sum("image/png" in output.get("data", ()) for output in shown) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_section_finds_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*\.md)?#([^)]+)\)", page.read_text("utf-8")):
        there = page.parent / target if target else page
        assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def typed_commands(text: str) -> Iterator[list[str]]:
    """The lines of a page's code blocks that a person would type after `freshet`."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith(("freshet ", ".venv/bin/freshet ")):
                yield shlex.split(line, comments=True)[1:]


def parses(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context("freshet", rest)


def test_a_command_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(KeyError):
        parses(["forecast"])
    with pytest.raises(Exception, match="No such option"):
        parses(["verify", "--fast"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one_of_the_command_line(page: Path) -> None:
    for arguments in typed_commands(page.read_text("utf-8")):
        parses(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_and_every_file_on_a_page_exists(page: Path) -> None:
    known = {setting.name for setting in known_settings()}
    sections = "|".join({name.split(".")[0] for name in known})
    quoted = re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))
    for text in quoted:
        if re.fullmatch(rf"({sections})\.[a-z_]+(\.[a-z_]+)?", text):
            assert text in known, f"{page.name} names the setting {text}"
        if re.fullmatch(r"(stream|model|online|dashboard|tests|deploy|docs|bench)/[\w./-]*", text):
            assert (ROOT / text).exists(), f"{page.name} names the file {text}"


def test_the_page_of_guarantees_names_every_script_that_writes_windows() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    (told,) = re.findall(
        r"scripts write windows\*\* \(`stream/store/lua/`\): (.*?)\. ", page, re.DOTALL
    )
    scripts = {path.stem for path in (ROOT / "stream" / "store" / "lua").glob("*.lua")}
    assert set(re.findall(r"`([a-z]+)`", told)) == scripts


def test_the_wire_format_and_the_picture_name_every_topic() -> None:
    names = [field.default for field in Topics.model_fields.values()]
    assert len(names) == 21
    wire = (ROOT / "docs" / "wire-format.md").read_text("utf-8")
    assert not [name for name in names if f"`{name}`" not in wire]
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    drawn = set(re.findall(r"[\w.]+", " ".join(re.findall(r"\[\(([^)]+)\)\]", page))))
    assert not [name for name in names if name[len("freshet.") : -len(".v1")] not in drawn]


def test_the_files_to_begin_with_lie_in_their_rooms() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w/]+/)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    assert len(rows) > 10
    for room, files in rows:
        for name in re.findall(r"`([\w/.]+)`", files):
            assert (ROOT / room / name).is_file(), f"{room} has no {name}"


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_json_schema_is_valid_and_names_required_fields(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    made = schema(kind, WRITTEN[kind])
    jsonschema.Draft202012Validator.check_schema(made)
    required = {
        field.encode_name for field in msgspec.structs.fields(WRITTEN[kind]) if field.required
    }
    definition = made["$defs"][WRITTEN[kind].__name__]
    assert set(definition["required"]) == required


@pytest.mark.parametrize(
    "path", sorted((ROOT / "bench" / "results").glob("*.json")), ids=lambda path: path.name
)
def test_a_result_file_names_machine_and_versions(path: Path) -> None:
    assert {"machine", "versions"} <= json.loads(path.read_text("utf-8")).keys()
