"""Commands that learn and measure: train, evaluate."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from equipoise.cli.app import INTERRUPTED, app, messages, results, say
from equipoise.cli.arguments import (
    DEFAULT_MODEL,
    ModelArgument,
    PrecisionOption,
    ThreadsOption,
    dtype_of,
    model_file,
)
from equipoise.data import Report, read, rmd17
from equipoise.graph import Graph
from equipoise.potentials import describe, load
from equipoise.report.terminal import evaluation_table, recipe_table
from equipoise.train import (
    FitResult,
    fit,
    load_recipe,
    make_recipe,
    read_datasets,
    recipe_keys,
    recipe_names,
)
from equipoise.train import evaluate as evaluate_potential


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
    result = fit(load_recipe(recipe, changes or ()), where, resume=not fresh, console=messages)
    stop_if_interrupted(result)
    say(outcome(result))
    say(f"model: {result.model}\nNext:  equipoise evaluate {result.folder}")


@app.command()
def evaluate(
    model: ModelArgument = DEFAULT_MODEL,
    data: Annotated[
        str | None,
        typer.Option(
            help="Labelled structures: a file ASE reads, or rmd17:MOLECULE for the official test "
            "set (ethanol comes with the package). Default: the test set of the model's recipe."
        ),
    ] = None,
    data_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of the rMD17 files, for molecules other than ethanol."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Also write evaluation.json and evaluation.npz into this run folder."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures per call.")] = 16,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many structures.")
    ] = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Measure the errors of a potential on labelled structures."""
    torch.set_num_threads(threads)
    file = model_file(model)
    potential = load(file, dtype=dtype_of(precision))
    graphs, name = _labelled(file, data, data_folder, potential.cutoff)
    graphs = graphs[:limit]
    say(f"{name}: {Report.of(graphs)}")
    with messages.status(f"predicting {len(graphs)} structures"):
        evaluation = evaluate_potential(potential, graphs, batch_size=batch_size)
    results.print(evaluation_table(evaluation, model=model, data=name))
    target = folder or (Path(model) if Path(model).is_dir() else None)
    if target is not None:
        evaluation.save(target, model=file, data=name)
        say(f"written: {target / 'evaluation.json'}\nNext:  equipoise md {target}")


def stop_if_interrupted(result: FitResult, advice: str = "") -> None:
    if not result.finished:
        if advice:
            say(advice)
        raise typer.Exit(INTERRUPTED)


def outcome(result: FitResult) -> str:
    return (
        f"trained for {result.seconds / 60:.1f} min, {result.epochs:.3g} epochs; "
        f"best validation {result.best_force_mae_mev:.3g} meV/Å at epoch {result.best_epoch:g}"
    )


def _labelled(
    model: str, data: str | None, data_folder: Path | None, cutoff: float
) -> tuple[list[Graph], str]:
    """The structures to evaluate on, and what to call them."""
    if data is None:
        recipe = (describe(model).get("extra") or {}).get("recipe")
        if recipe is None:
            raise ValueError(f"{model} does not say what it was trained on; give --data")
        section = make_recipe({"data": recipe["data"]}).data
        if data_folder is not None:
            section = section.model_copy(update={"folder": str(data_folder)})
        test = read_datasets(section, cutoff=cutoff).test
        name = f"rmd17:{section.molecule}" if section.source == "rmd17" else str(section.test)
        if not test:
            raise ValueError(f"the recipe of {model} names no test structures; give --data")
        return test, name
    if data.startswith("rmd17:"):
        molecule = data.removeprefix("rmd17:")
        return rmd17(molecule, cutoff=cutoff, folder=data_folder).test, data
    return read(data, cutoff=cutoff), data
