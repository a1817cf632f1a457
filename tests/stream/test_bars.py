"""A progress bar is for people: a terminal shows it, a file stays empty."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from freshet.stream.bars import progress_bar


def drawn(*, terminal: bool, shown: bool = True, total: float | None = 40) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    with progress_bar(total, "series [of all]", console=console, shown=shown) as bar:
        assert bar.shown == (terminal and shown)
        bar.done(10, "A-17")
        bar.done(20)
    return screen.getvalue()


def test_a_terminal_sees_what_is_done_of_all_and_the_last_note() -> None:
    seen = drawn(terminal=True)
    assert "20/40" in seen and "A-17" in seen and "series [of all]" in seen


def test_what_has_no_known_end_is_counted() -> None:
    assert "20/?" in drawn(terminal=True, total=None)


@pytest.mark.parametrize(("terminal", "shown"), [(False, True), (True, False), (False, False)])
def test_a_file_and_who_did_not_ask_see_nothing(terminal: bool, shown: bool) -> None:
    assert not drawn(terminal=terminal, shown=shown).strip()
