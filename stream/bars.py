"""Progress bars of long work, all alike: on standard error, silent where that is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Bar:
    """How much of some work is done, and a note beside it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress = progress
        self.task = task

    @property
    def shown(self) -> bool:
        """Whether anybody looks."""
        return not self.progress.disable

    def done(self, completed: float, note: str | None = None) -> None:
        """Show what is done of all, and another note where one is given."""
        self.progress.update(self.task, completed=completed)
        if note is not None:
            self.progress.update(self.task, note=note)


@contextmanager
def progress_bar(
    total: float | None, what: str = "", *, console: Console | None = None, shown: bool = True
) -> Iterator[Bar]:
    """A bar until the block ends; printed lines stand above it.

    Args:
        total: of what is to be done; None where nobody knows.
        what: is done, at the bar's left.
        console: where; default standard error.
        shown: False for work that was not asked to show itself.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    screen = Console(stderr=True) if console is None else console
    done = BarColumn(), MofNCompleteColumn()
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn(escape(what)), *done, note, TimeElapsedColumn(), TimeRemainingColumn())
    hidden = not (shown and screen.is_terminal)
    # Standard output stays what it is: it may go to a file while the bar is looked at.
    with Progress(
        *columns, console=screen, transient=True, disable=hidden, redirect_stdout=False
    ) as progress:
        yield Bar(progress, progress.add_task("", total=total, note=""))
