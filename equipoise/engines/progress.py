"""The live line of a simulation: where it is, how fast, and whether energy holds."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from equipoise.engines.drift import Drift

REFRESH = 0.2  # seconds between two looks; formatting is not free
WIDE = 110  # columns of the terminal; in a narrower one the numbers come first


class LiveLine:
    """A progress bar with the state of a simulation beside it.

    **Arguments**

    - `steps`: where the simulation ends.
    - `first`: the step from which it starts or goes on.
    - `enabled`: False shows nothing at all.
    - `console`: where to draw; by default stderr, which leaves stdout to results.
    """

    def __init__(
        self,
        steps: int,
        *,
        first: int,
        enabled: bool,
        console: Console | None = None,
    ) -> None:
        console = Console(stderr=True) if console is None else console
        columns: list[ProgressColumn] = [
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
        ]
        if console.width >= WIDE:
            columns = [BarColumn(bar_width=20), *columns, TimeRemainingColumn()]
        self._progress = Progress(
            *columns,
            console=console,
            disable=not enabled,
            refresh_per_second=5,
        )
        self._enabled = enabled
        self._task = self._progress.add_task("md", total=steps, state="")
        self._progress.update(self._task, completed=first)
        self._shown = 0.0

    def __enter__(self) -> "LiveLine":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @property
    def due(self) -> bool:
        """Whether it is time to look again; what is shown costs something to find."""
        return self._enabled and time.monotonic() - self._shown >= REFRESH

    def show(
        self,
        step: int,
        *,
        ns_per_day: float,
        passes_per_step: float,
        temperature_k: float,
        drift: Drift | None,
    ) -> None:
        """Draw the state; `drift` per atom, None where it means nothing."""
        self._shown = time.monotonic()
        state = f"{ns_per_day:.3g} ns/day  {passes_per_step:.1f} passes/step  {temperature_k:.0f} K"
        if drift is not None:
            state += f"  drift {drift} meV/atom/ps"
        self._progress.update(self._task, completed=step, state=state)
