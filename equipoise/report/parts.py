"""What stands on the page of a run, from top to bottom: pictures and tables, and when there are none."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from equipoise.report.evaluation_plots import comparison_plot, parity_plots
from equipoise.report.molecule import filmstrip
from equipoise.report.plots import energy_trajectory, learning_curve, passes_plot, solving_plot
from equipoise.report.published import published_for
from equipoise.report.run_folder import RunFolder
from equipoise.report.tables import (
    Grid,
    Record,
    comparison_grid,
    difference_grid,
    element_grid,
    molecule_grid,
    property_grid,
    worst_grid,
)


@dataclass(frozen=True)
class Part:
    """A section of the page: a picture, tables, or both."""

    title: str
    about: str  # HTML: what is seen, and how to read it
    file: str = ""  # the picture, written beside the page
    draw: Callable[[RunFolder], Figure | None] = lambda run: (
        None
    )  # None: the run has not got this far
    tables: Callable[[RunFolder], list[Grid | None]] = lambda run: []
    absent: str = ""  # HTML: how to get it; without, the section is left out when there is nothing


def _learning(run: RunFolder) -> Figure | None:
    return learning_curve(run.log, published_for(run.data_name)) if run.log else None


def _parity(run: RunFolder) -> Figure | None:
    return parity_plots(run.parity) if run.parity else None


def _energy(run: RunFolder) -> Figure | None:
    if not run.md_log:
        return None
    return energy_trajectory(run.md_log, n_atoms=run.n_atoms)


def _passes(run: RunFolder) -> Figure | None:
    if not run.md_log or "passes" not in run.md_log:
        return None
    return passes_plot(run.md_log, run.md_cold)


def film(run: RunFolder) -> Figure | None:
    return filmstrip(run.frames) if run.frames else None


def _solving(run: RunFolder) -> Figure | None:
    passes = (run.log or {}).get("passes")
    # An explicit network makes none.
    return None if passes is None or not np.nansum(passes) > 0 else solving_plot(run.log)


def _comparison(run: RunFolder) -> Figure | None:
    return comparison_plot(run.comparison) if run.comparison else None


def _compared(run: RunFolder) -> list[Grid | None]:
    if not run.comparison:
        return []
    models = property_grid(run.comparison["models"])
    return [comparison_grid(run.comparison), difference_grid(run.comparison), models]


def _measured(*grids: Callable[[Record], Grid | None]) -> Callable[[RunFolder], list[Grid | None]]:
    return lambda run: [grid(run.evaluation) for grid in grids] if run.evaluation else []


PARTS = (
    Part(
        "Models compared",
        "The same structures for all. Bars: where the error would lie with another test set of the same kind and size.",
        "comparison.png",
        _comparison,
        tables=_compared,
    ),
    Part(
        "Learning curve",
        "Mean absolute errors after every epoch. Dashed: published test errors of full-size "
        "networks trained on GPUs, where we know of any for this data.",
        "learning_curve.png",
        _learning,
        absent="<code>equipoise train RECIPE --folder RUN</code> writes log.csv.",
    ),
    Part(
        "Fixed points in training",
        "Passes through the block that a solve takes, and what a pass leaves of an error. The smaller the contraction, the fewer "
        "passes; above 1 only the solver's acceleration finds the fixed point at all.",
        "solving.png",
        _solving,
    ),
    Part(
        "Prediction against reference",
        "Evaluated structures (left; per atom, without the energies of the elements) and force components (right); brighter is "
        "denser. Below, the errors, magnified.",
        "parity.png",
        _parity,
        absent="<code>equipoise evaluate MODEL --folder RUN</code> writes evaluation.npz.",
    ),
    Part(
        "Where the errors are",
        "By element: errors of the forces on its atoms. By molecule: structures of one composition, or of one label.",
        tables=_measured(element_grid, molecule_grid),
    ),
    Part(
        "Worst structures",
        "Look at these first: a structure unlike the training set, a wrong label, or a solve that did not converge. "
        "<code>equipoise evaluate MODEL --folder RUN</code> writes them to worst.extxyz, with forces, references and errors.",
        tables=_measured(worst_grid),
    ),
    Part(
        "Energy along the trajectory",
        "A conservative force field keeps the total energy of an isolated molecule; what is left "
        "is the integrator's ripple, and a drift if forces are not quite the energy's gradient.",
        "energy.png",
        _energy,
        absent="<code>equipoise md MODEL --folder RUN/md</code> writes md/log.csv.",
    ),
    Part(
        "Passes per step",
        "One pass is one application of the network's block. A solve that starts from the last "
        "steps' fixed points (reused) gives the same forces, to the solver's tolerance, as one "
        "from nothing; the passes it saves are the time it saves.",
        "passes.png",
        _passes,
        absent="<code>equipoise md MODEL --folder RUN/md</code> counts passes in md/log.csv.",
    ),
    Part(
        "The molecule moving",
        "Drag to turn, space to play or pause.",
        "molecule.png",
        film,
        absent="<code>equipoise md MODEL --folder RUN/md</code> writes md/trajectory.extxyz.",
    ),
)
