"""Commands that learn and measure: train, evaluate."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from equipoise.data import Report, label_keys, read
from equipoise.graph import Graph
from equipoise.potentials import describe, load
from equipoise.report.terminal import evaluation_table, recipe_table
from equipoise.train import (
    DataSection,
    FitResult,
    fit,
    load_recipe,
    make_recipe,
    read_test,
    recipe_keys,
    recipe_names,
)
from equipoise.train import evaluate as evaluate_potential

# What the library calls its arguments, and what they are called on the command line.
IN_A_RECIPE = {"energy_key": "data.energy_key", "forces_key": "data.forces_key"}
AS_OPTIONS = {"energy_key": "--energy-key", "forces_key": "--forces-key"}


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
    with _in_words_of(IN_A_RECIPE):
        result = fit(checked, where, resume=not fresh, console=messages)
    stop_if_interrupted(result)
    say(outcome(result))
    say(f"model: {result.model}\nNext:  equipoise evaluate {result.folder}")


@app.command()
def evaluate(
    model: ModelArgument = DEFAULT_MODEL,
    data: Annotated[
        str | None,
        typer.Option(
            help="Labelled structures: a file ASE reads, an .npz file of rMD17, or rmd17:MOLECULE "
            "for the official test set of the split the model was trained on (ethanol split 1 "
            "comes with the package). Default: the test set of the model's recipe."
        ),
    ] = None,
    data_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of the rMD17 files, for molecules other than ethanol."),
    ] = None,
    energy_key: Annotated[
        str | None,
        typer.Option(help="Name of the energies in the file; default: as in training."),
    ] = None,
    forces_key: Annotated[
        str | None,
        typer.Option(help="Name of the forces in the file; default: as in training."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Write evaluation.json and evaluation.npz into this run folder. Without --data, "
            "default: the run folder of the model."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures per call.")] = 16,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many structures.")
    ] = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Measure the errors of a potential on labelled structures.

    Example: [dim]equipoise evaluate runs/mine --data test.extxyz[/]
    """
    torch.set_num_threads(threads)
    file = model_file(model)
    potential = load(file, dtype=dtype_of(precision))
    keys = {"energy_key": energy_key, "forces_key": forces_key}
    with _in_words_of(AS_OPTIONS):
        graphs, name, labels = _labelled(file, data, data_folder, keys, potential.cutoff)
        graphs = graphs[:limit]
        origin = "".join(f"; {kind} from {key!r}" for kind, key in labels.items())
        say(f"{name}: {Report.of(graphs)}{origin}")
        with messages.status(f"predicting {len(graphs)} structures"):
            evaluation = evaluate_potential(potential, graphs, batch_size=batch_size)
    results.print(evaluation_table(evaluation, model=model, data=name))
    # The evaluation.json of a run is about its own test set, unless somebody wants it otherwise.
    target = folder or (Path(model) if Path(model).is_dir() and data is None else None)
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


@contextmanager
def _in_words_of(names: Mapping[str, str]) -> Iterator[None]:
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


def _labelled(
    model: str,
    data: str | None,
    data_folder: Path | None,
    keys: dict[str, str | None],
    cutoff: float,
) -> tuple[list[Graph], str, dict[str, str]]:
    """The structures to evaluate on, what to call them, and under which keys labels stood."""
    section = _trained_on(model)
    if data is None:
        if section is None:
            raise ValueError(f"{model} does not say what it was trained on; give --data")
        if section.source == "rmd17":
            data = f"rmd17:{section.molecule}"
        elif section.test is None:
            raise ValueError(f"the recipe of {model} names no test structures; give --data")
        else:
            data = section.test
    if data.startswith("rmd17:"):
        _refuse_keys(keys, data)
        molecule = data.removeprefix("rmd17:")
        official = DataSection(molecule=molecule)
        if section is not None and (section.source, section.molecule) == ("rmd17", molecule):
            official = section  # another split would hold structures of the training set
        if data_folder is not None:
            official = official.model_copy(update={"folder": str(data_folder)})
        return read_test(official, cutoff=cutoff), data, {}
    if data_folder is not None:
        raise ValueError(f"--data-folder is for rmd17:MOLECULE, received --data {data}")
    if data.endswith(".npz"):
        _refuse_keys(keys, data)
    elif section is not None:
        trained = {"energy_key": section.energy_key, "forces_key": section.forces_key}
        keys = {name: keys[name] or trained[name] for name in keys}
    return read(data, cutoff=cutoff, **keys), data, label_keys(data, **keys)


def _trained_on(model: str) -> DataSection | None:
    """The data section of the recipe that a model file carries."""
    recipe = (describe(model).get("extra") or {}).get("recipe")
    return None if recipe is None else make_recipe({"data": recipe["data"]}).data


def _refuse_keys(keys: dict[str, str | None], data: str) -> None:
    given = [f"{AS_OPTIONS[name]} {key}" for name, key in keys.items() if key is not None]
    if given:
        raise ValueError(
            f"the labels of rMD17 have fixed names, received {' and '.join(given)} for {data}; "
            "leave that out"
        )
