"""Runs the cells of docs/notebooks/*.py and writes each as a notebook with its outputs beside it.

Run: python -m docs.notebook. The format is Jupyter's version 4, a JSON of cells.
"""

from __future__ import annotations

import ast
import base64
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "notebooks"
MARK = "# %%"
MARKDOWN = "# %% [markdown]"


class Cell(NamedTuple):
    """One cell: words, or lines to run."""

    markdown: bool
    source: str


def cells(path: Path) -> Iterator[Cell]:
    """The cells of a file in the percent format."""
    for part in ("\n" + path.read_text("utf-8")).split("\n" + MARK)[1:]:
        head, _, body = part.partition("\n")
        markdown = head.strip() == "[markdown]"
        lines = body.strip("\n").split("\n")
        if markdown:
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        yield Cell(markdown, "\n".join(lines))


def run(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last line where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), value


def notebook(path: Path, outputs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """A file's cells as a notebook.

    Args:
        path: the file.
        outputs: of each cell that is run, in their order; fewer: the rest has none.
    """
    found = []
    made = iter(outputs)
    for number, cell in enumerate(cells(path)):
        lines = cell.source.splitlines(keepends=True)
        kind = "markdown" if cell.markdown else "code"
        one: dict[str, Any] = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": lines,
        }
        if not cell.markdown:
            one |= {"execution_count": None, "outputs": next(made, [])}
        found.append(one)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def shown(printed: str, value: Any) -> list[dict[str, Any]]:
    """What a person sees under a cell: text, tables, pictures."""
    found: list[dict[str, Any]] = []
    if printed:
        lines = printed.splitlines(keepends=True)
        found.append({"output_type": "stream", "name": "stdout", "text": lines})
    if value is not None:
        data: dict[str, Any] = {"text/plain": repr(value)}
        if hasattr(value, "savefig"):
            picture = io.BytesIO()
            value.savefig(picture, format="png", dpi=80, metadata={"Software": None})
            data["image/png"] = base64.b64encode(picture.getvalue()).decode()
        elif hasattr(value, "to_html"):
            data["text/html"] = value.to_html()
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    return found


def main() -> None:
    """Run and write all of them."""
    for path in sorted(FOLDER.glob("*.py")):
        names: dict[str, Any] = {}
        outputs = [shown(*run(cell.source, names)) for cell in cells(path) if not cell.markdown]
        text = json.dumps(notebook(path, outputs), indent=1, ensure_ascii=False)
        path.with_suffix(".ipynb").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
