"""Commands that show: report, info."""

from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli.app import app, results
from equipoise.cli.arguments import model_file
from equipoise.potentials import describe, load, zoo
from equipoise.report import write_report
from equipoise.report.terminal import model_table


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder, as train, md and quickstart leave it.")],
) -> None:
    """Draw a run: one HTML page with learning curve, errors, energies and the molecule moving."""
    print(write_report(run))


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(help="A model file, run folder or name; left out: list the names.")
    ] = "",
) -> None:
    """Say what a model file holds, or which models come with the package."""
    if not model:
        results.print("\n".join(zoo()) or "no models come with this version", highlight=False)
        return
    file = model_file(model)
    parameters = sum(each.numel() for each in load(file).parameters())
    results.print(model_table(describe(file), parameters=parameters))
