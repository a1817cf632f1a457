"""How a demo talks to a terminal: one live panel for people, plain lines for a pipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from freshet.online.demo.resolution import plural
from freshet.stream.clock import when

MAX_LINES = 14
PLAIN_STATUS_EVERY = 10


@dataclass(frozen=True, slots=True)
class Status:
    """The numbers of one moment; None is not known yet.

    `wql` is of what is served and of seasonal naive, for the newest buckets of each resolution.
    """

    phase: str
    clock_ms: int | None = None
    events: int = 0
    events_per_s: float = 0.0
    items: int = 0
    forecasts: int = 0
    wql: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    weights_version: str = ""
    page: str = ""

    def as_rows(self) -> list[tuple[str, str]]:
        """Label and value, in reading order."""
        rows = [("phase", self.phase)]
        if self.clock_ms is not None:
            rows.append(("clock", when(self.clock_ms)))
        rows.append(("events", f"{self.events:,} applied ({self.events_per_s:,.0f}/s)"))
        rows.append(("forecasts", f"{self.forecasts:,} for {self.items:,} items"))
        for resolution_ms, (served, naive) in self.wql.items():
            label = f"error, newest {plural(resolution_ms)}"
            rows.append((label, f"{served:.3f} WQL, seasonal naive {naive:.3f}"))
        if self.weights_version:
            rows.append(("weights", self.weights_version))
        return rows + ([("page", self.page)] if self.page else [])


class Display(Protocol):
    """Where sentences and numbers go."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def say(self, sentence: str) -> None: ...
    def show(self, status: Status) -> None: ...


class LineDisplay:
    """Lines, for logs and pipes: every sentence at once, the numbers every ten updates."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        if self._shown % PLAIN_STATUS_EVERY == 0:
            self.say("  " + "; ".join(f"{label}: {value}" for label, value in status.as_rows()))
        self._shown += 1


class PanelDisplay:
    """One panel that stays in place, with the newest sentences under the numbers."""

    def __init__(self, console: Console) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._status = Status("starting")
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def say(self, sentence: str) -> None:
        self._lines.append(sentence)

    def show(self, status: Status) -> None:
        self._status = status

    def _draw(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        for label, value in self._status.as_rows():
            table.add_row(Text(label, style="dim"), Text(value))
        story = [Text(f"• {line}") for line in self._lines]
        return Panel(
            Group(table, Text(), *story),
            title="freshet demo",
            subtitle="Ctrl-C stops",
            border_style="cyan",
        )


def open_display(console: Console) -> Display:
    """A panel on a terminal, lines elsewhere."""
    return PanelDisplay(console) if console.is_terminal else LineDisplay(console)
