"""Everything that a validation is written to."""

from contextlib import ExitStack
from types import TracebackType

from equipoise.train.config import Recipe
from equipoise.train.log import Log, Row
from equipoise.train.run_folder import RunFolder
from equipoise.train.tensorboard import TensorBoard
from equipoise.train.weights_and_biases import WeightsAndBiases


class Logs:
    """`log.csv`, TensorBoard, and Weights & Biases if the recipe wants it. Use as a context.

    Args:
      folder, recipe: of the run.
      after: step of the last row that counts, -1 for none; later ones, of an earlier start, are forgotten.
      write: False for a process that leaves this to another one.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, *, after: int, write: bool) -> None:
        self._folder, self._recipe, self._after, self._write = folder, recipe, after, write
        self._open = ExitStack()
        self._logs: list[Log | TensorBoard | WeightsAndBiases] = []

    def __enter__(self) -> "Logs":
        if self._write:
            log = Log(self._folder.log)
            log.forget_after(self._after)
            board = TensorBoard(self._folder.tensorboard, after=self._after)
            self._logs = [log, self._open.enter_context(board)]
            if self._recipe.output.wandb is not None:
                third = WeightsAndBiases(self._folder, self._recipe)
                self._logs.append(self._open.enter_context(third))
        return self

    def append(self, row: Row) -> None:
        """**Raises** `SavingError` if the disk refuses."""
        for log in self._logs:
            log.append(row)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, traceback)
