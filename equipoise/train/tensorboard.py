"""`tensorboard/`: the rows of `log.csv` once more, for TensorBoard."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from equipoise.train.log import Row
from equipoise.train.state import saving_error

# Column of the log -> name of the curve. What stands before "/" is one section of the page.
TAGS = {
    "loss": "loss",
    "train_energy_mae_mev": "energy_mae_mev/train",
    "valid_energy_mae_mev": "energy_mae_mev/valid",
    "train_force_mae_mev": "force_mae_mev/train",
    "valid_force_mae_mev": "force_mae_mev/valid",
    "valid_stress_mae_mev": "stress_mae_mev/valid",
    "passes": "solver/passes",
    "adjoint_passes": "solver/adjoint_passes",
    "unconverged": "solver/unconverged",
    "contraction": "solver/contraction",
    "lr": "run/lr",
    "epoch": "run/epoch",
}


class TensorBoard:
    """Appends rows as scalars over the step. Use as a context, which ends the writer's thread.

    **Arguments**

    - `folder`: of the event files; made with the first row.
    - `after`: step of the last row that counts, -1 for none. Readers drop what an earlier start
      of the run wrote beyond it, as `Log.forget_after` does in the CSV file.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        # Here and not above: importing it takes a third of a second, which --help need not wait.
        from torch.utils.tensorboard import SummaryWriter

        self._open = lambda: SummaryWriter(str(folder), purge_step=after + 1)
        self._writer: SummaryWriter | None = None
        self.folder = folder

    def append(self, row: Row) -> None:
        """**Raises** `SavingError` if the disk refuses."""
        try:
            if self._writer is None:
                self._wait_for_a_new_name()
                self._writer = self._open()
            for column, value in asdict(row).items():
                if column in TAGS and math.isfinite(value):  # NaN: there was no such label
                    self._writer.add_scalar(TAGS[column], value, row.step)
            self._writer.flush()
        except OSError as error:
            raise saving_error(self.folder, error) from error

    def _wait_for_a_new_name(self) -> None:
        # Readers take files in the order of their names: the second, then numbers without leading zeros, of which
        # "10" comes before "9" and a later file before the one it corrects.
        while any(self.folder.glob(f"*.{int(time.time()):010d}.*")):
            time.sleep(0.05)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
