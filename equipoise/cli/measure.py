"""The command `evaluate`: how good a potential is, or which of several."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import torch
import typer
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from equipoise.cli.app import app, messages, results, say
from equipoise.cli.arguments import (
    DEFAULT_MODEL,
    Device,
    DeviceOption,
    PrecisionOption,
    ThreadsOption,
    device_of,
    dtype_of,
    model_file,
    one_process,
)
from equipoise.cli.labelled import labelled, molecules_in
from equipoise.cli.learn import AS_OPTIONS, in_words_of
from equipoise.cli.overlap import warn_of_overlap
from equipoise.data import Report
from equipoise.graph import Graph
from equipoise.potentials import Potential, load
from equipoise.report import style
from equipoise.report.evaluation_plots import comparison_plot, parity_plots
from equipoise.report.run_folder import read_parity
from equipoise.report.tables import (
    comparison_grid,
    difference_grid,
    element_grid,
    molecule_grid,
    property_grid,
    worst_grid,
)
from equipoise.report.terminal import evaluation_table, grid_table
from equipoise.train import (
    Bootstrap,
    Evaluation,
    compare,
    examine,
    save_worst,
    write_comparison,
)
from equipoise.train import evaluate as evaluate_potential
from equipoise.train.evaluate import WORST
from equipoise.train.state import make_folder, write_atomically

SHOWN_WORST = 5  # in the terminal; files hold more


@app.command()
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Model files, run folders, or names of models that come with the package; several are compared on the same "
            f"structures, with the first. Default: {DEFAULT_MODEL}.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A file of labelled structures (extxyz and whatever else [bold]equipoise data[/] reads), or NAME:SUBSET for the "
            "test structures of a published data set, such as rmd17:ethanol, which is shipped (see [bold]equipoise data "
            "list[/]). Default: the test set of the (first) model's recipe."
        ),
    ] = None,
    data_folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the files of a published data set; default: where downloads go."
        ),
    ] = None,
    energy_key: Annotated[
        str | None,
        typer.Option(help="Name of the energies in the file; default: as in training."),
    ] = None,
    forces_key: Annotated[
        str | None,
        typer.Option(help="Name of the forces in the file; default: as in training."),
    ] = None,
    stress_key: Annotated[
        str | None,
        typer.Option(help="Name of the stress in the file; default: as in training."),
    ] = None,
    molecule_key: Annotated[
        str | None,
        typer.Option(
            help="Name, in an extxyz file, of what tells structures apart in the errors by molecule, such as config_type; "
            "default: the formula."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Write the numbers, a picture and the worst structures into this folder. For one model without --data, "
            "default: its run folder."
        ),
    ] = None,
    block: Annotated[
        int,
        typer.Option(
            min=1,
            help="Structures that are drawn together for the intervals; more than 1 for frames of a trajectory, which resemble "
            "their neighbours.",
        ),
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures per call.")] = 16,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many structures.")
    ] = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Measure the errors of a potential on labelled structures, or compare several.

    Example: [dim]equipoise evaluate runs/mine --data test.extxyz[/]

    Example: [dim]equipoise evaluate runs/mine runs/other --data test.extxyz --folder runs/compared[/]
    """
    one_process("evaluate")
    torch.set_num_threads(threads)
    names = models or [DEFAULT_MODEL]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"every model can be given once, received {', '.join(twice)} twice")
    files = {name: model_file(name) for name in names}
    # The evaluation.json of a run is about its own test set, unless somebody wants it otherwise.
    own = Path(names[0]) if len(names) == 1 and data is None and Path(names[0]).is_dir() else None
    target = folder or own
    if target is not None:
        make_folder(target)  # now, and not after an hour of predictions
    bootstrap = Bootstrap(block=block)
    keys = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    with in_words_of(AS_OPTIONS):
        test = labelled(files[names[0]], data, data_folder, keys)
        limit = min((each for each in (limit, test.count) if each is not None), default=None)
        molecules = molecules_in(test.file, molecule_key, limit)

    evaluations: dict[str, Evaluation] = {}
    records: dict[str, dict[str, Any]] = {}
    graphs: Sequence[Graph] = ()
    for name, file in files.items():
        potential = load(file, dtype=dtype_of(precision), device=device_of(device))
        if not evaluations or graphs[0].cutoff != potential.cutoff:
            with in_words_of(AS_OPTIONS):
                graphs = test.structures(potential.cutoff)[:limit]
        if not evaluations:
            origin = "".join(f"; {kind} from {key!r}" for kind, key in test.labels.items())
            say(f"{test.name}: {Report.of(graphs)}{origin}")
            warn_of_overlap(files, test, graphs)
        with _measuring(name, potential, graphs, batch_size) as observe, in_words_of(AS_OPTIONS):
            evaluations[name] = evaluate_potential(
                potential, graphs, batch_size=batch_size, molecules=molecules, observe=observe
            )
            examination = examine(potential, graphs)
        records[name] = evaluations[name].as_dict(
            model=file, data=test.name, bootstrap=bootstrap, examination=examination
        )

    if len(names) > 1:
        _show_several(evaluations, records, bootstrap, data=test.name, target=target)
        return
    _show_one(names[0], evaluations[names[0]], records[names[0]], data=test.name)
    if target is not None:
        evaluation = evaluations[names[0]]
        evaluation.write(target, records[names[0]])
        save_worst(potential, graphs, evaluation.outcomes.worst(WORST), target / "worst.extxyz")
        parity = read_parity(target / "evaluation.npz")
        _draw(target / "evaluation.png", lambda: parity_plots(parity))
        say(f"written: {target / 'evaluation.json'}\nNext:  equipoise report {target}")


def _show_one(name: str, evaluation: Evaluation, record: dict[str, Any], *, data: str) -> None:
    results.print(evaluation_table(evaluation, model=name, data=data, record=record))
    for grid in (
        molecule_grid(record),
        element_grid(record),
        worst_grid(record | {"worst": record["worst"][:SHOWN_WORST]}),
        property_grid({name: record}),
    ):
        if grid is not None:
            results.print(grid_table(grid))
    offset, scatter = record["energy_offset_mev"], record["energy_scatter_mev"]
    if offset is not None and scatter is not None and abs(offset) > max(5 * scatter, 10.0):
        say(
            f"note: all energies are off by about {offset:+,.0f} meV, and scatter by {scatter:,.0f} meV only: are the labels of "
            "another level of theory, or another zero of energy, than those of the training set?",
            style="yellow",
        )


def _show_several(
    evaluations: dict[str, Evaluation],
    records: dict[str, dict[str, Any]],
    bootstrap: Bootstrap,
    *,
    data: str,
    target: Path | None,
) -> None:
    comparison = compare(evaluations, bootstrap=bootstrap).as_dict(records, data=data)
    for grid in (
        comparison_grid(comparison),
        difference_grid(comparison),
        property_grid(records),
    ):
        results.print(grid_table(grid))
    if target is not None:
        write_comparison(target, comparison)
        _draw(target / "comparison.png", lambda: comparison_plot(comparison))
        say(f"written: {target / 'comparison.json'}\nNext:  equipoise report {target}")


@contextmanager
def _measuring(
    name: str, potential: Potential, graphs: Sequence[Graph], batch_size: int
) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; yields what is to be told how many structures are done."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=messages,
        disable=not messages.is_terminal,
        transient=True,
    )
    done = 0

    def observe(count: int) -> None:
        nonlocal done
        done = count
        bar.update(task, completed=count)

    with bar:
        task = bar.add_task(f"predicting with {name}", total=len(graphs))
        try:
            yield observe
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"stopped after {done} of {len(graphs)} structures, nothing is written; --limit N measures on the first N only"
            ) from interrupt
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"{name} ran out of memory on {potential.device} after {done} of {len(graphs)} structures, with batches of "
                f"{batch_size}; give a smaller --batch-size"
            ) from error


def _draw(path: Path, draw: Callable[[], Figure]) -> None:
    with mpl.rc_context(style.RC):
        figure = draw()
        write_atomically(path, lambda partial: figure.savefig(partial, format="png"))
