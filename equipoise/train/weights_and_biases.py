"""The rows of `log.csv` once more, for Weights & Biases, where a recipe asks for it with `output.wandb`."""

import importlib
import math
import secrets
from dataclasses import asdict
from types import ModuleType, TracebackType
from typing import Any

from equipoise.train.config import Recipe
from equipoise.train.log import Row
from equipoise.train.run_folder import RunFolder
from equipoise.train.state import write_atomically
from equipoise.train.tensorboard import TAGS


class WeightsAndBiases:
    """Appends rows to a run of the project `output.wandb`. Use as a context.

    A run that goes on after a stop goes on there too: its identity lies in the run folder. Where there is no network, set
    WANDB_MODE=offline; the files then lie in the run folder, for `wandb sync`.

    **Raises** `ValueError` if the package is not installed.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe) -> None:
        wandb = import_wandb()
        if not folder.wandb.exists():
            write_atomically(folder.wandb, lambda file: file.write_text(secrets.token_hex(4)))
        self._run: Any = wandb.init(
            project=recipe.output.wandb,
            name=folder.path.name,
            id=folder.wandb.read_text(),
            resume="allow",
            dir=str(folder.path),
            config=recipe.model_dump(mode="json"),
        )

    def append(self, row: Row) -> None:
        """Log one row at its step."""
        values = asdict(row)
        shown = {tag: values[name] for name, tag in TAGS.items() if math.isfinite(values[name])}
        self._run.log(shown, step=row.step)

    def __enter__(self) -> "WeightsAndBiases":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)


def import_wandb() -> ModuleType:
    """**Raises** `ValueError` if the package is not installed."""
    # By name and when it is wanted: it is large, and most people do without it.
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError(
            "output.wandb needs the package wandb, which is not installed: pip install wandb, or leave output.wandb out "
            "(log.csv and TensorBoard are always written)"
        ) from error
