"""How a run ends."""

from dataclasses import dataclass
from pathlib import Path

from equipoise.train.config import TrainingSection
from equipoise.train.state import Counters


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and the state has been saved."""


@dataclass(frozen=True)
class FitResult:
    """How a call of `fit` ended."""

    folder: Path
    model: Path  # the best averaged weights so far; there is none before the first validation
    finished: bool  # False: interrupted, with the state saved
    epochs: float
    steps: int
    seconds: float  # over all starts of the run
    best_force_mae_mev: (
        float | None
    )  # on the validation set; of energies where no force is labelled
    best_unit: str  # of that: meV/Å, or meV for energies
    best_epoch: float | None
    bad_steps: int  # skipped because something was not finite
    unconverged: int  # solves in training that did not reach their tolerance
    resume_command: str


def not_finite(at: Counters, settings: TrainingSection, path: Path) -> TrainingError:
    return TrainingError(
        f"the loss or its gradient was not finite {settings.max_bad_steps} times in a row, last "
        f"at step {at.step}; the weights before that are saved in {path}. Lower "
        "training.learning_rate or training.clip_norm, and look for wrong labels in the data"
    )
