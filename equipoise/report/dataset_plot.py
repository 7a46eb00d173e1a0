"""A data set in one picture: energies, forces, sizes and distances."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.data.survey import Survey
from equipoise.report import style

MEV = 1000.0  # meV per eV
_BINS = 80


def dataset_plot(survey: Survey, *, name: str) -> Figure:
    """Four distributions; one that there is nothing to show of says so.

    Energies are what is left of them, per atom, when the reference energies of the elements are taken away: what is to be learned.
    """
    figure = style.new_figure(10, 6.6)
    looked = "" if survey.looked_at == survey.structures else f" ({survey.looked_at:,} looked at)"
    figure.suptitle(f"{name}: {survey.structures:,} structures{looked}", x=0.01, ha="left")
    (energy, force), (size, distance) = figure.subplots(2, 2)

    known = survey.energies[~np.isnan(survey.energies)] * MEV
    _histogram(energy, known, "energy beyond the reference energies (meV per atom)", "structures")
    energy.set_title("Energy" + (f"   spread {known.std():.3g} meV per atom" if known.size else ""))

    lengths = survey.forces[survey.forces > 0]
    if lengths.size:
        low, high = max(np.quantile(lengths, 1e-3), 1e-4), lengths.max()
        bins = np.geomspace(low, max(high, 2 * low), _BINS)
        force.hist(lengths, bins=bins, color=style.MODEL)
        force.set_xscale("log")
        force.set_xlabel("length of a force (eV/Å)")
        force.set_ylabel("atoms")
        rms = survey.statistics.force_rms
        force.set_title(f"Forces   {MEV * rms:.0f} meV/Å rms per component")
    else:
        _nothing(force, "Forces")

    if len(np.unique(survey.atoms)) > 1:
        _counts(size, survey.atoms, "atoms", "structures")
        size.set_title(f"Sizes   {survey.atoms.min()} to {survey.atoms.max()} atoms")
    else:
        _counts(size, survey.neighbours, f"neighbours within {survey.cutoff:g} Å", "atoms")
        mean = survey.statistics.mean_neighbours
        size.set_title(
            f"Neighbours   {mean:.3g} per atom, all structures of {survey.atoms[0]} atoms"
        )

    if survey.distances.size:
        bins = np.linspace(0, survey.cutoff, 2 * _BINS)
        distance.hist(survey.distances, bins=bins, color=style.MODEL)
        distance.set_xlabel("distance of two atoms (Å)")
        distance.set_ylabel("pairs")
        distance.set_title(f"Distances   shortest {survey.distances.min():.2f} Å")
    else:
        _nothing(distance, "Distances")
    return figure


def _histogram(axes: Axes, values: np.ndarray, label: str, what: str) -> None:
    if not values.size:
        _nothing(axes, "")
        return
    low, high = values.min(), values.max()
    if high - low < 1e-9:  # all the same
        low, high = low - 0.5, high + 0.5
    axes.hist(values, bins=np.linspace(low, high, _BINS), color=style.MODEL)
    axes.set_xlabel(label)
    axes.set_ylabel(what)


def _counts(axes: Axes, values: np.ndarray, label: str, what: str) -> None:
    low, high = int(values.min()), int(values.max())
    step = max(1, (high - low) // _BINS)
    axes.hist(values, bins=np.arange(low, high + 2 * step, step) - 0.5, color=style.OTHER)
    if low == high:
        axes.set_xlim(low - 5, high + 5)  # one bar, not a wall
    axes.set_xlabel(label)
    axes.set_ylabel(what)


def _nothing(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.text(0.5, 0.5, "no such labels", ha="center", va="center", color=style.MUTED)
    axes.set_xticks([])
    axes.set_yticks([])
