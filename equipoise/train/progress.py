"""What a person sees while a run goes on."""

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from equipoise.train.config import TrainingSection
from equipoise.train.log import Row
from equipoise.train.state import Counters


class Bar:
    """A progress bar on a terminal; elsewhere (a file, a queue) nothing but `say`."""

    def __init__(self, console: Console, *, description: str) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            # Steps differ in time by a factor of a few as solves get longer or shorter.
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task(description, total=1.0, text="")

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

    def update(self, progress: float, text: str) -> None:
        """Move the bar to `progress` (0 to 1)."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=progress, text=text)

    def say(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        # No markup: a folder may be called "[bold]".
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def validation_line(row: Row, settings: TrainingSection, *, best: bool, bad_steps: int) -> str:
    """A validation, for people; a star marks the best so far."""
    line = (
        f"epoch {row.epoch:g}/{settings.epochs}  {row.seconds:.0f} s  "
        f"forces {_shown(row.train_force_mae_mev)} train, {_shown(row.valid_force_mae_mev)} valid "
        f"meV/Å  energy {_shown(row.valid_energy_mae_mev)} meV  "
    )
    if not math.isnan(row.valid_stress_mae_mev):
        line += f"stress {_shown(row.valid_stress_mae_mev)} meV/Å³  "
    line += f"passes {_shown(row.passes)}+{_shown(row.adjoint_passes)}"
    if row.unconverged:
        line += f"  {row.unconverged} solves did not converge"
    if bad_steps:
        line += f"  {bad_steps} steps skipped (not finite)"
    return line + ("  *" if best else "")


def step_text(at: Counters, settings: TrainingSection, *, steps_per_epoch: int) -> str:
    """The words beside the bar."""
    epoch, step = divmod(at.step - 1, steps_per_epoch)
    train = _shown(at.tally.errors().force_mae_mev)
    text = (
        f"epoch {epoch + 1}/{settings.epochs} step {step + 1}/{steps_per_epoch}  "
        f"forces {train} meV/Å train, best valid {_shown(at.best_score)} {at.best_unit}  "
        f"passes {_shown(at.tally.mean_passes)}"
    )
    return text + (f"  unconverged {at.tally.unconverged}" if at.tally.unconverged else "")


def _shown(value: float | None) -> str:
    """A number of meV for a status line; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
