"""`log.csv`: one row per validation."""

import csv
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from equipoise.train.metrics import Errors
from equipoise.train.state import Counters, saving_error, write_atomically


@dataclass(frozen=True)
class Row:
    """One row of the log: training since the previous row, validation with the average."""

    epoch: float
    step: int
    seconds: float  # since the start of the run, pauses left out
    lr: float
    loss: float  # mean over the steps since the previous row
    train_energy_mae_mev: float  # meV, over the same steps, current weights
    train_force_mae_mev: float  # meV/Å
    valid_energy_mae_mev: float  # meV, averaged weights
    valid_force_mae_mev: float  # meV/Å
    passes: float  # forward passes per training structure
    adjoint_passes: float
    unconverged: int  # training structures whose fixed point was not reached
    # Error left after one pass at a fixed point, worst of some validation structures.
    contraction: float
    valid_stress_mae_mev: float = math.nan  # meV/Å³, where stress is trained on


COLUMNS = tuple(field.name for field in fields(Row))


def make_row(
    at: Counters, valid: Errors, *, epoch: float, seconds: float, rate: float, contraction: float
) -> Row:
    """The row of a validation."""
    train = at.tally.errors()
    return Row(
        epoch=epoch,
        step=at.step,
        seconds=seconds,
        lr=rate,
        loss=at.loss_sum / at.loss_count if at.loss_count else math.nan,
        train_energy_mae_mev=train.energy_mae_mev,
        train_force_mae_mev=train.force_mae_mev,
        valid_energy_mae_mev=valid.energy_mae_mev,
        valid_force_mae_mev=valid.force_mae_mev,
        passes=at.tally.mean_passes,
        adjoint_passes=at.tally.mean_adjoint_passes,
        unconverged=at.tally.unconverged,
        contraction=contraction,
        valid_stress_mae_mev=valid.stress_mae_mev,
    )


class Log:
    """Appends rows to a CSV file; `forget_after` removes those a resumed run writes again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Row) -> None:
        """**Raises** `SavingError` if the disk refuses."""
        try:
            new = not self.path.exists()
            with open(self.path, "a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow({k: _number(v) for k, v in asdict(row).items()})
        except OSError as error:
            raise saving_error(self.path, error) from error

    def forget_after(self, step: int) -> None:
        """Keep the complete rows up to `step`: later ones come from beyond the checkpoint."""
        if not self.path.exists():
            return
        with open(self.path, newline="") as file:
            rows = [r for r in csv.reader(file) if len(r) == len(COLUMNS)][1:]
        column = COLUMNS.index("step")
        kept = [list(COLUMNS)] + [r for r in rows if int(r[column]) <= step]
        text = "".join(",".join(row) + "\r\n" for row in kept)
        write_atomically(self.path, lambda partial: partial.write_bytes(text.encode()))


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.8g}"
