"""The command `sweep`: many runs of one recipe, to find good settings."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from equipoise.cli.app import INTERRUPTED, app, messages, results, say
from equipoise.train.sweep import Trial, load_sweep
from equipoise.train.sweep import sweep as run_sweep

SHOWN = 10  # best trials in the table; all are in sweep.csv


@app.command()
def sweep(
    settings: Annotated[
        Path, typer.Argument(help="A YAML file: a recipe, changes to it, and what is varied.")
    ],
    trials: Annotated[int, typer.Option(min=1, help="How many there are to be in all.")] = 20,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the sweep; default: runs/ and the file's name.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides the proposals.")] = 0,
) -> None:
    """Search for good settings of a recipe (needs the package optuna).

    Stop it with Ctrl-C and start it again to go on; start it several times at once to share the
    trials. Each trial is a run folder of its own.

    Example: [dim]equipoise sweep sweep.yaml --trials 20 --folder runs/sweep[/]
    """
    where = folder or Path("runs") / settings.stem
    found = run_sweep(load_sweep(settings), where, trials=trials, seed=seed, console=messages)
    results.print(_table(found))
    if any(trial.state == "waiting" for trial in found):
        say("stopped; the same command goes on")
        raise typer.Exit(INTERRUPTED)
    if found and found[0].score is not None:
        say(f"all trials: {where / 'sweep.csv'}\nNext:  equipoise evaluate {found[0].folder}")


def _table(trials: list[Trial]) -> Table:
    table = Table(title="best trials")
    table.add_column("forces, valid, meV/Å", justify="right")
    keys = list(trials[0].values) if trials else []
    for key in keys:
        table.add_column(key.rpartition(".")[2], justify="right")
    table.add_column("run")
    for trial in trials[:SHOWN]:
        score = trial.state if trial.score is None else f"{trial.score:.3g}"
        values = [_shown(trial.values.get(key)) for key in keys]
        table.add_row(score, *values, str(trial.folder))
    return table


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
