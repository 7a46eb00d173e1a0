"""The command `quickstart`: everything once, in minutes."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import ase
import torch
import typer

from equipoise.cli.app import app, messages, results, say
from equipoise.cli.learn import outcome, stop_if_interrupted
from equipoise.data import rmd17
from equipoise.engines.md import MDResult, run_md
from equipoise.potentials import Potential, load
from equipoise.report import write_report
from equipoise.report.terminal import evaluation_table, md_table
from equipoise.train import evaluate, fit, load_recipe

# How the minutes of a quickstart are spent; the rest is for evaluation and dynamics.
TRAINING_SHARE = 0.56
REPORT_SECONDS = 15
PROBE_STEPS = 40  # of dynamics, to learn what a step costs here
FEWEST_STEPS, MOST_STEPS = 200, 4000


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/quickstart"),
    minutes: Annotated[
        float, typer.Option(min=0.1, help="About how long all of it may take.")
    ] = 6.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again from nothing.")] = False,
) -> None:
    """Train, evaluate, simulate and report: ethanol from nothing, in about six minutes.

    Ctrl-C at any time; the same command goes on where it stopped.
    """
    began = time.monotonic()
    say("1/4  Training on 950 DFT structures of ethanol (rMD17)", style="bold")
    recipe = load_recipe("quickstart", [f"training.max_seconds={TRAINING_SHARE * minutes * 60:g}"])
    fitted = fit(recipe, folder, resume=not fresh, console=messages)
    again = f"equipoise quickstart --folder {folder} --minutes {minutes:g}"
    stop_if_interrupted(fitted, f"or, for the whole quickstart:\n{again}")
    say(outcome(fitted))

    say("\n2/4  Evaluating on the 1000 official test structures", style="bold")
    torch.set_num_threads(recipe.training.threads)
    potential = load(fitted.model)
    test = rmd17("ethanol", cutoff=potential.cutoff).test
    with messages.status("predicting"):
        evaluation = evaluate(potential, test, batch_size=32)
    evaluation.save(folder, model=str(fitted.model), data="rmd17:ethanol")
    results.print(evaluation_table(evaluation, model="this run", data="rmd17:ethanol"))

    say("\n3/4  Simulating ethanol (NVE), fixed points reused from step to step", style="bold")
    until = began + minutes * 60 - REPORT_SECONDS
    simulation = _simulate(test[0].to_ase()[0], potential, folder / "md", until, fresh=fresh)
    results.print(md_table(simulation.summary))

    say("\n4/4  Report", style="bold")
    page = write_report(folder).resolve()
    say(f"Open   file://{page}\nNext   equipoise md {folder} --temperature 500 --folder runs/hot")


def _simulate(
    atoms: ase.Atoms, potential: Potential, folder: Path, until: float, *, fresh: bool
) -> MDResult:
    """Dynamics for as many steps as fit before `until` (on the monotonic clock, s)."""
    finished = folder / "summary.json"
    if finished.is_file() and not fresh:
        steps = json.loads(finished.read_text())["steps"]  # the length an earlier start has chosen
    else:
        with TemporaryDirectory() as scratch:
            probe = run_md(atoms, potential, steps=PROBE_STEPS, folder=scratch, progress=False)
        affordable = round((until - time.monotonic()) / probe.summary.seconds_per_step)
        steps = min(max(affordable, FEWEST_STEPS), MOST_STEPS)
    return run_md(
        atoms,
        potential,
        steps=steps,
        folder=folder,
        cold_sample=20,
        resume=not fresh,
        console=messages,
    )
