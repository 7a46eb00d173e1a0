"""The command `equipoise data label`: new training sets from a calculator."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from equipoise.cli.app import messages, results, say
from equipoise.cli.arguments import one_process
from equipoise.cli.data import data_app
from equipoise.data.label import (
    Dask,
    Langevin,
    Method,
    Processes,
    Request,
    Summary,
    label,
    read_structures,
)

INCOMPLETE = 3  # exit code: finished, but something failed on the way


DYNAMICS, WORKERS, TROUBLE = "Dynamics (with --temperature)", "Workers", "Stopping and going on"


@data_app.command("label")
def label_command(
    structures: Annotated[
        Path,
        typer.Argument(
            help="Structures to label, or to start dynamics from: any file ASE reads (xyz, extxyz, cif, "
            "db, ...), or an .npz of MD17, rMD17 or sGDML. Labels in it are ignored."
        ),
    ],
    keywords: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Given to the calculator, such as accuracy=0.1 or charge=-1.",
        ),
    ] = None,
    calculator: Annotated[
        str,
        typer.Option(
            help="gfn2, gfn1, ipea1 (xTB; needs tblite), emt, lj, or module:factory, where the factory "
            "returns any ASE calculator."
        ),
    ] = "gfn2",
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            rich_help_panel=DYNAMICS,
            help="K: run Langevin dynamics at this temperature and label its frames; repeat for "
            "several. Without: label the structures as they are.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(rich_help_panel=DYNAMICS, help="Per trajectory.", show_default="100"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(rich_help_panel=DYNAMICS, help="Steps between frames.", show_default="50"),
    ] = None,
    timestep: Annotated[
        float | None,
        typer.Option(rich_help_panel=DYNAMICS, help="fs; 0.5 with hydrogen.", show_default="0.5"),
    ] = None,
    friction: Annotated[
        float | None, typer.Option(rich_help_panel=DYNAMICS, help="1/ps.", show_default="10")
    ] = None,
    equilibration: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=DYNAMICS,
            help="Steps before the first frame counts.",
            show_default="1000",
        ),
    ] = None,
    trajectories: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=DYNAMICS, help="Per structure and temperature.", show_default="1"
        ),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=DYNAMICS,
            help="Frames that are computed and saved in one go; kill -9 costs no more than these.",
            show_default="10",
        ),
    ] = None,
    max_temperature: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=DYNAMICS,
            help="K; a hotter trajectory ends.",
            show_default="ten times its temperature, at least 3000",
        ),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=DYNAMICS,
            help="Å; a trajectory ends when an atom has no neighbour within it. inf for gases.",
            show_default="5",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the labels go.", show_default="labels/FILE-CALCULATOR"),
    ] = None,
    index: Annotated[
        str, typer.Option(help="Which structures of the file: 0, -1, :100, ::10, ...")
    ] = ":",
    seed: Annotated[
        int, typer.Option(rich_help_panel=DYNAMICS, help="Of momenta and thermostat.")
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=WORKERS,
            min=1,
            help="Processes.",
            show_default="the CPU cores there are",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            rich_help_panel=WORKERS,
            min=1,
            help="Of each worker; more workers are nearly always better.",
        ),
    ] = 1,
    dask: Annotated[
        bool,
        typer.Option(
            "--dask",
            rich_help_panel=WORKERS,
            help="Use a Dask cluster on this machine instead of processes.",
        ),
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WORKERS,
            help="Use the Dask cluster with this scheduler, such as tcp://node01:8786.",
        ),
    ] = None,
    max_failures: Annotated[
        float,
        typer.Option(
            rich_help_panel=TROUBLE, help="Stop when more than this part of the units have failed."
        ),
    ] = 0.1,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", rich_help_panel=TROUBLE, help="Try again what failed in an earlier start."
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", rich_help_panel=TROUBLE, help="Delete the labels in the folder first."
        ),
    ] = False,
) -> None:
    """Make a training set: label structures, or frames of dynamics, with GFN2-xTB or any ASE calculator.

    Writes labels.extxyz, which [bold]equipoise train[/] reads as it is, record.json, and failures.jsonl where
    something failed (exit code 3). A run that was stopped goes on when it is started again with the same
    command; more --frames prolong it.

    Examples: [dim]equipoise data label mine.xyz --calculator gfn2[/];
    [dim]equipoise data label start.xyz --temperature 300 --temperature 600 --frames 500[/];
    [dim]equipoise data label mine.xyz --calculator my_module:make_calculator kpts=4[/]
    """
    one_process("data label")
    method = Method(calculator, _keywords(keywords or []))
    options = {
        "frames": frames,
        "stride": stride,
        "timestep_fs": timestep,
        "friction_per_ps": friction,
        "equilibration": equilibration,
        "trajectories": trajectories,
        "chunk": chunk,
        "max_temperature_k": max_temperature,
        "max_gap": max_gap,
    }
    request = Request(method=method, langevin=_langevin(temperature, options), seed=seed)
    atoms = read_structures(structures, index=index)
    units = request.units(len(atoms))
    workers = min(workers or _cores(), units)
    cluster = dask or scheduler is not None
    engine = (
        Dask(scheduler=scheduler, workers=workers, threads=threads)
        if cluster
        else Processes(workers=workers, threads=threads)
    )
    target = folder or Path("labels") / f"{structures.stem}-{_file_name(method)}"
    summary = label(
        atoms,
        request,
        folder=target,
        engine=engine,
        source=f"{structures} [{index}]",
        max_failures=max_failures,
        retry=retry,
        resume=not fresh,
        console=messages,
    )
    results.print(_table(summary, method))
    say(f"written: {summary.labels_file}")
    if summary.failures:
        say(
            f"{len(summary.failures)} of {summary.units} {summary.noun} failed: see "
            f"{summary.failures_file}, and --retry",
            style="yellow",
        )
        raise typer.Exit(INCOMPLETE)
    say(f"Next:  equipoise train quickstart data.source=file data.train={summary.labels_file}")


def _langevin(
    temperatures: list[float] | None, options: dict[str, int | float | None]
) -> Langevin | None:
    given = {name: value for name, value in options.items() if value is not None}
    if temperatures:
        return Langevin(**{"temperatures_k": tuple(temperatures), "frames": 100} | given)
    if given:
        names = ", ".join(
            f"--{name.removesuffix('_k').removesuffix('_fs').removesuffix('_per_ps').replace('_', '-')}"
            for name in given
        )
        raise ValueError(f"{names} need dynamics: give a --temperature as well, or leave them out")
    return None


def _keywords(pairs: list[str]) -> dict[str, Any]:
    keywords = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (equals and key.isidentifier()):
            raise ValueError(
                f"arguments of the calculator must be written KEY=VALUE, received {pair!r}"
            )
        keywords[key] = _value(text)
    return keywords


def _value(text: str) -> Any:
    """Numbers, true, false, null, [lists] and {maps} as in YAML; everything else is text."""
    for number in (int, float):  # YAML takes 1e-3 for text
        try:
            return number(text)
        except ValueError:
            pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _file_name(method: Method) -> str:
    return method.name.split(":")[-1].replace(".", "-")


def _table(summary: Summary, method: Method) -> Table:
    table = Table(title="Labels", title_justify="left", show_header=False)
    failed = len(summary.failures)
    rows = [
        ("method", f"{method.title} ({method.version})"),
        ("labelled frames", f"{summary.frames}"),
        (summary.noun, f"{summary.units - failed} of {summary.units}"),
        (
            "time",
            f"{1000 * summary.seconds_per_frame:.3g} ms of one worker per frame, "
            f"{summary.wall_seconds:.0f} s in this start",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    return table
