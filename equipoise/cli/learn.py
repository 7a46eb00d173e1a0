"""The command `train`."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli.app import INTERRUPTED, app, messages, results, say
from equipoise.report.terminal import recipe_table
from equipoise.train import (
    FitResult,
    fit,
    load_recipe,
    recipe_keys,
    recipe_names,
    speaks,
)

# What the library calls its arguments, and what they are called on the command line.
KINDS_OF_KEYS = ("energy", "forces", "stress")
IN_A_RECIPE = {f"{kind}_key": f"data.{kind}_key" for kind in KINDS_OF_KEYS}
AS_OPTIONS = {f"{kind}_key": f"--{kind}-key" for kind in KINDS_OF_KEYS}


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help=f"A recipe of the package ({', '.join(recipe_names())}), a YAML file, or the "
            "folder of a run to go on with."
        ),
    ] = "",
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Changes to the recipe, e.g. training.epochs=50 data.train=water.extxyz",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Run folder; default: runs/ and the name of the recipe.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the run in the folder and start again.")
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="List every key of a recipe with its default, and exit.")
    ] = False,
) -> None:
    """Fit a potential to energies and forces.

    A run that was stopped goes on when it is started again with the same command.

    Example, your own data (eV, Å):

    [dim]equipoise train quickstart data.source=file data.train=mine.extxyz --folder runs/mine[/]
    """
    if keys:
        results.print(recipe_table(recipe_keys()))
        return
    if not recipe:
        raise ValueError(
            f"train needs a recipe: {', '.join(recipe_names())}, a YAML file, or a run folder"
        )
    where = folder or (Path(recipe) if Path(recipe).is_dir() else None)
    checked = load_recipe(recipe, changes or ())
    with in_words_of(IN_A_RECIPE):
        result = fit(checked, where, resume=not fresh, console=messages)
    stop_if_interrupted(result)
    if not speaks():
        return
    say(outcome(result))
    say(f"model: {result.model}\nNext:  equipoise evaluate {result.folder}")


def stop_if_interrupted(result: FitResult, advice: str = "") -> None:
    if not result.finished:
        if advice:
            say(advice)
        raise typer.Exit(INTERRUPTED)


def outcome(result: FitResult) -> str:
    return (
        f"trained for {result.seconds / 60:.1f} min, {result.epochs:.3g} epochs; "
        f"best validation {result.best_force_mae_mev:.3g} {result.best_unit} at epoch {result.best_epoch:g}"
    )


@contextmanager
def in_words_of(names: Mapping[str, str]) -> Iterator[None]:
    """Lets errors of the library name what a user of the command can give."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        for ours, theirs in names.items():
            text = re.sub(rf"(?<![\w.]){ours}\b", theirs, text)
        if text == str(error):
            raise
        raise ValueError(text) from error
