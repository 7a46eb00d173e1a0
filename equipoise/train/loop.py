"""Fitting a potential: everything around the loop of `Trainer`."""

from pathlib import Path

from rich.console import Console

from equipoise.train.config import Recipe
from equipoise.train.logs import Logs
from equipoise.train.machine import find_device, settings_of_torch
from equipoise.train.processes import Processes, join_processes
from equipoise.train.progress import Bar
from equipoise.train.result import FitResult
from equipoise.train.run_folder import begin_run, find_run
from equipoise.train.trainer import Trainer
from equipoise.train.weights_and_biases import import_wandb


def fit(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = True,
    console: Console | None = None,
) -> FitResult:
    """Fit a potential to data, as a recipe says, and keep everything in one folder.

    The folder then holds `recipe.yaml` (all keys), `log.csv` and `tensorboard/` (the same numbers
    twice), `model.safetensors` (the moving
    average of the weights where it was best on the validation set) and `state.safetensors`
    (to go on from). A run that was stopped, by whatever means, goes on when it is started
    again: on a CPU, and without `max_seconds`, it ends with the same bits as if it had never
    stopped.

    Ctrl-C and SIGTERM end the call after the current step, with the state saved and `finished`
    False in the result.

    Under `torchrun` every process calls this, and they train one potential together: each takes
    its share of every batch, and only the first writes files. The result is that of one process
    up to rounding, apart from the noise of the Jacobian penalty.

    **Arguments**

    - `folder`: of the run; by default the recipe's `output.folder`.
    - `resume`: go on with the run found in the folder. False deletes it and starts afresh.
    - `console`: where progress is shown: a bar on a terminal, a line per validation elsewhere.

    **Raises** `ValueError` if the folder holds a run of a different recipe, or the data cannot
    be used; `SavingError` (an `OSError`) if the disk is full; `TrainingError` if the loss is
    not finite `max_bad_steps` times in a row; `ProcessError` if another process has ended.
    """
    if folder is None and recipe.output.folder is None:
        raise ValueError("a run needs a folder: give one, or set output.folder in the recipe")
    path = Path(folder if folder is not None else recipe.output.folder)
    device = find_device(recipe.training.device)
    with join_processes() as processes, settings_of_torch(recipe.training, device):
        processes.agree("recipe", recipe.model_dump_json())
        if recipe.output.wandb is not None and processes.first:
            import_wandb()
        run = find_run(recipe, path, resume=resume)
        trainer = Trainer(recipe, run, device, processes, resume=resume)
        # Only now is the folder touched: a slip in the recipe must not cost a run.
        with (
            begin_run(run, recipe, resume=resume, write=processes.first),
            Logs(run, recipe, after=trainer.at.logged_step, write=processes.first) as logs,
            Bar(_console(console, processes), description=path.name) as bar,
        ):
            return trainer.run(logs, bar)


def _console(console: Console | None, processes: Processes) -> Console:
    """One process speaks."""
    return (console or Console()) if processes.first else Console(quiet=True)
