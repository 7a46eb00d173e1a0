"""What a person sees while labels are made."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

QUIET = 60.0  # seconds between two lines where there is no terminal


class Bar:
    """A bar with the time left on a terminal; elsewhere (a file, a queue) a line every minute.

    Args:
      console: None shows nothing at all.
      total, done: in units of ``noun``.
    """

    def __init__(self, console: Console | None, *, total: int, done: int, noun: str) -> None:
        self._console, self._total, self._noun = console, total, noun
        self._spoken = time.monotonic()
        self._start = (done, time.monotonic())  # of the estimate; workers need a while to begin
        self._begun = False
        self._bar = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn(noun),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=console is None or not console.is_terminal,
            transient=True,
            speed_estimate_period=300,
        )
        self._task = self._bar.add_task("label", total=total, completed=done, text="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, done: int, text: str) -> None:
        """Move to ``done``, with ``text`` beside it."""
        self._bar.update(self._task, completed=done, text=text)
        if self._console is None or self._console.is_terminal:
            return
        now, (first, began) = time.monotonic(), self._start
        if not self._begun:
            self._begun, self._start = done > first, (done, now)
        elif now - self._spoken >= QUIET and done > first:
            self._spoken = now
            left = (now - began) / (done - first) * (self._total - done) / 60
            self.say(f"{done} of {self._total} {self._noun}, {left:.0f} min left; {text}")

    def say(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
