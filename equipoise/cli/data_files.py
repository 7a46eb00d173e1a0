"""`equipoise data stats`, `plot`, `convert`, `split`: structures looked at and written."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from equipoise.cli.app import messages, results, say
from equipoise.cli.data import data_app
from equipoise.data import MappedStructures, write_mapped
from equipoise.data.divide_file import divide_file
from equipoise.data.extxyz import SUFFIXES, write_frames
from equipoise.data.inputs import Input, open_input
from equipoise.data.provenance import one_theory
from equipoise.data.sources.arrays import Joined
from equipoise.data.survey import Survey, survey
from equipoise.report import style
from equipoise.report.dataset_plot import dataset_plot
from equipoise.report.dataset_tables import survey_table

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A file (extxyz and whatever else ASE reads, .npz of MD17, rMD17 or sGDML, .h5, .db, .aselmdb), a mapped folder, or a "
        "published data set that is here: NAME or NAME:SUBSET, such as rmd17:ethanol.",
    ),
]
CutoffOption = Annotated[float, typer.Option(min=0.1, help="Å, that neighbours are counted with.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="Where a published data set is, if not where downloads go.")
]
PartOption = Annotated[
    str | None,
    typer.Option(
        help="Of a published data set: train, validation, test or all. Default: all; convert wants it said where parts must be "
        "kept apart."
    ),
]
TargetOption = Annotated[
    str | None, typer.Option(help="Of a published data set: which label is the energy, such as U0.")
]
SplitOption = Annotated[
    int | None, typer.Option(min=1, help="rmd17: number of the official split. Default: 1.")
]
EnergyKeyOption = Annotated[str | None, typer.Option(help="Name of the energies in a file.")]
ForcesKeyOption = Annotated[str | None, typer.Option(help="Name of the forces in a file.")]
StressKeyOption = Annotated[str | None, typer.Option(help="Name of the stress in a file.")]
UnitOption = Annotated[
    str | None,
    typer.Option(help="Of the energies in an .npz that does not say: eV, kcal/mol, Hartree, ..."),
]
ForceUnitOption = Annotated[
    str | None,
    typer.Option(
        help="Of the forces, where they are not energies per length unit: Hartree/bohr, ..."
    ),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Look at every structure, not at 10,000 spread evenly.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there already.")
]


@data_app.command("stats")
def stats_command(
    data: DataArgument,
    cutoff: CutoffOption = 5.0,
    part: PartOption = None,
    folder: FolderOption = None,
    target: TargetOption = None,
    split: SplitOption = None,
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    stress_key: StressKeyOption = None,
    unit: UnitOption = None,
    force_unit: ForceUnitOption = None,
    everything: AllOption = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers to this file as well.")
    ] = None,
) -> None:
    """Structures, elements, labels, neighbours, reference energies, ranges; and what looks wrong.

    Example: [dim]equipoise data stats mine.extxyz --cutoff 6[/]
    """
    given = open_input(
        data, cutoff=cutoff, part=part, folder=folder, target=target, split=split,
        energy_key=energy_key, forces_key=forces_key, stress_key=stress_key, unit=unit, force_unit=force_unit,
    )  # fmt: skip
    found = _surveyed(given, everything)
    results.print(survey_table(found, name=given.name, labels=given.labels, theory=given.theory))
    for warning in found.warnings:
        say(f"look: {warning}", style="yellow")
    if json_file is not None:
        json_file.write_text(json.dumps(_plain(found, given), indent=2) + "\n", encoding="utf-8")
        say(f"written: {json_file}")


@data_app.command("plot")
def plot_command(
    data: DataArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The picture; its ending says which kind.")
    ] = Path("data.png"),
    cutoff: CutoffOption = 5.0,
    part: PartOption = None,
    folder: FolderOption = None,
    target: TargetOption = None,
    split: SplitOption = None,
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    stress_key: StressKeyOption = None,
    unit: UnitOption = None,
    force_unit: ForceUnitOption = None,
    everything: AllOption = False,
) -> None:
    """Draw how energies, forces, sizes and distances are distributed.

    Example: [dim]equipoise data plot rmd17:ethanol -o ethanol.png[/]
    """
    given = open_input(
        data, cutoff=cutoff, part=part, folder=folder, target=target, split=split,
        energy_key=energy_key, forces_key=forces_key, stress_key=stress_key, unit=unit, force_unit=force_unit,
    )  # fmt: skip
    found = _surveyed(given, everything)
    with mpl.rc_context(style.RC):
        dataset_plot(found, name=Path(data).name if given.file else data).savefig(output)
    say(f"written: {output}")


@data_app.command("convert")
def convert_command(
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="One or more of what [bold]stats[/] takes, joined."),
    ],
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            help="NAME.extxyz (or .xyz) for text that everything reads; any other name becomes a mapped folder, which training "
            "reads without loading it.",
        ),
    ],
    cutoff: Annotated[
        float,
        typer.Option(min=0.1, help="Å, that neighbours in a mapped folder are counted with."),
    ] = 5.0,
    float32: Annotated[
        bool,
        typer.Option(
            "--float32", help="Mapped folder: round positions and forces, for half the size."
        ),
    ] = False,
    part: PartOption = None,
    folder: FolderOption = None,
    target: TargetOption = None,
    split: SplitOption = None,
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    stress_key: StressKeyOption = None,
    unit: UnitOption = None,
    force_unit: ForceUnitOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write data as extxyz, or as a mapped folder for sets that do not fit into memory.

    From extxyz to extxyz frames are copied as they are. Sets of different theory are refused: their energies cannot be learned
    together.

    Example: [dim]equipoise data convert oc20-s2ef:200K --part train --to oc20-200k-train[/]
    """
    given = [
        open_input(
            each, cutoff=cutoff, part=part, folder=folder, target=target, split=split,
            energy_key=energy_key, forces_key=forces_key, stress_key=stress_key, unit=unit, force_unit=force_unit,
        )
        for each in data
    ]  # fmt: skip
    _one_theory(given)
    _not_mixed(given)
    graphs = given[0].graphs if len(given) == 1 else Joined([each.graphs for each in given])
    about = given[0].about if len(given) == 1 else _together(given)
    text = to.suffix in SUFFIXES
    if float32 and text:
        raise ValueError(f"--float32 is for a mapped folder, received --to {to}; leave it out")
    with _bar("writing", len(graphs)) as progress:
        if text:
            # In one file REF_ labels would make nothing of the plain labels of the others.
            plain = len({each.references for each in given}) > 1
            frames = (
                each.text(row, plain=plain) for each in given for row in range(len(each.graphs))
            )
            number = write_frames(to, frames, overwrite=overwrite, progress=progress)
            written = f"{number:,} structures"
        else:
            if overwrite:
                raise ValueError(
                    f"a mapped folder is not overwritten; delete {to} first, or name another"
                )
            write_mapped(to, graphs, info=about, float32=float32, progress=progress)
            written = str(MappedStructures(to, cutoff=cutoff).report())
    say(f"written: {to}, {written}")
    left = set() if text else set().union(*(each.left_behind() for each in given))
    if left:
        say(
            f"left behind: {', '.join(sorted(left))}; a mapped folder has no place for them, extxyz has",
            style="yellow",
        )


@data_app.command("split")
def split_command(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="Structures, best as extxyz.")],
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = Path("."),
    train: Annotated[str, typer.Option(help="Number or fraction of the structures.")] = "0.8",
    validation: Annotated[str, typer.Option(help="Number or fraction; the rest tests.")] = "0.1",
    by: Annotated[
        str,
        typer.Option(
            help="random; blocks:N (N structures in a row stay together: for trajectories); formula; or a key of the comment "
            "lines, such as config_type (all with one value stay together)."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(min=0, help="Another number, another split.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Divide a file into train.extxyz, validation.extxyz and test.extxyz, without leaks.

    Structures that are there twice never end up in two parts.

    Example: [dim]equipoise data split mine.extxyz --by blocks:100 --folder parts[/]
    """
    with messages.status(f"reading {data}"):
        done = divide_file(
            data,
            folder,
            train=_amount("--train", train),
            validation=_amount("--validation", validation),
            by=by,
            seed=seed,
            overwrite=overwrite,
        )
    for name, number in done.counts.items():
        where = done.files.get(name, "no file, there is nothing left for it")
        say(f"{name:10} {number:>8,} structures  {where}")
    if done.left_out:
        say(
            f"{done.left_out} structures are in no file: the same geometry is in a part before theirs",
            style="yellow",
        )


def _surveyed(given: Input, everything: bool) -> Survey:
    total = len(given.graphs) if everything else min(len(given.graphs), 10_000)
    with _bar("looking at", total) as progress:
        return survey(given.graphs, limit=None if everything else 10_000, progress=progress)


@contextmanager
def _bar(what: str, total: int) -> Iterator:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not messages.is_terminal
    with Progress(*columns, console=messages, disable=hidden, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _one_theory(given: list[Input]) -> None:
    one_theory(each.file for each in given if each.file is not None)
    named = {each.name: each.theory for each in given if each.theory}
    if len(set(named.values())) > 1:
        listed = "; ".join(f"{name}: {theory}" for name, theory in named.items())
        raise ValueError(
            f"structures that are learned together must be of one level of theory, received {listed}; convert them one by one"
        )


def _not_mixed(given: list[Input]) -> None:
    for each in given:
        if each.mixed:
            raise ValueError(
                f"{each.name} has parts that must stay apart: whoever trains on all of it has seen what tests it. Convert them one "
                f"by one, --part train, validation and test; or --part all, where nothing is to be trained on"
            )


def _together(given: list[Input]) -> dict[str, str]:
    keys = dict.fromkeys(key for each in given for key in each.about)
    every = {key: dict.fromkeys(each.about.get(key, "") for each in given) for key in keys}
    return {key: "; ".join(filter(None, values)) for key, values in every.items()}


def _amount(option: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(
            f"{option} must be a number of structures or a fraction below 1, received {text!r}"
        ) from error


def _plain(found: Survey, given: Input) -> dict[str, object]:
    return {
        "data": given.name,
        "theory": given.theory,
        "structures": found.structures,
        "looked_at": found.looked_at,
        "labels": asdict(found.report),
        "cutoff": found.cutoff,
        "statistics": asdict(found.statistics),
        "elements": {str(z): list(numbers) for z, numbers in found.elements.items()},
        "compositions": found.formulas,
        "periodic": found.periodic,
        "warnings": list(found.warnings),
    }
