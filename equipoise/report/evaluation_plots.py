"""Pictures of errors: predictions against references, and models against each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from equipoise.report import style
from equipoise.report.run_folder import Parity

MEV = 1000.0  # meV per eV
FEW = 500  # points that can be drawn one by one


def parity_plots(parity: Parity) -> Figure:
    """Predicted against reference energies and forces, with the error below, as densities.

    Energies are per atom, without the reference energies of their elements and without the mean of what is then left: what
    remains is what a potential has to learn.
    """
    figure = style.new_figure(9, 6)
    grid = figure.subplots(2, 2, height_ratios=(3, 1.5), sharex="col")
    for (above, below), panel in zip(grid.T, (_energies(parity), _forces(parity)), strict=True):
        _panel(figure, above, below, *panel)
    return figure


def comparison_plot(comparison: Mapping[str, Any]) -> Figure:
    """Errors of several models with their intervals, one row each, the same order as in the table.

    Args:
        comparison: the record in `comparison.json`.
    """
    models = comparison["models"]
    panels = [
        (name, label)
        for name, label in (
            ("energy_mae_mev", "energy MAE (meV)"),
            ("force_mae_mev", "force MAE (meV/Å)"),
            ("stress_mae_mev", "stress MAE (meV/Å³)"),
        )
        if any(each.get(name) is not None for each in models.values())
    ]
    figure = style.new_figure(9, 1.1 + 0.36 * len(models))
    row = np.atleast_1d(figure.subplots(1, max(len(panels), 1), sharey=True))
    for axes, (name, label) in zip(row, panels, strict=False):
        for place, (model, record) in enumerate(models.items()):
            value = record.get(name)
            if value is None:
                continue
            colour = style.OTHER if model == comparison["reference"] else style.MODEL
            low, high = (record.get("intervals") or {}).get(name) or (value, value)
            axes.plot((low, high), (place, place), color=colour, linewidth=3, alpha=0.5)
            axes.plot(value, place, "o", color=colour, markersize=6)
        known = [each[name] for each in models.values() if each.get(name)]
        if known and max(known) > 8 * min(known):  # else the small ones could not be told apart
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
    row[0].set_yticks(range(len(models)), list(models))
    row[0].set_ylim(len(models) - 0.5, -0.5)  # the first on top, as in a table
    return figure


def _energies(parity: Parity) -> tuple[str, str, str, str, np.ndarray, np.ndarray]:
    if parity.atoms is None or parity.energy_mean is None:  # a file of an older version
        centre = np.nanmean(parity.energy_true) if np.isfinite(parity.energy_true).any() else 0.0
        true, pred = parity.energy_true - centre, parity.energy_pred - centre
        return "Energy", "meV", "eV", "energy − mean", true, pred
    true = (parity.energy_true - parity.energy_mean) / parity.atoms * MEV
    error = (parity.energy_pred - parity.energy_true) / parity.atoms * MEV
    true = true - (true[np.isfinite(true)].mean() if np.isfinite(true).any() else 0.0)
    what = "energy per atom − mean"
    return "Energy per atom", "meV/atom", "meV/atom", what, true, true + error


def _forces(parity: Parity) -> tuple[str, str, str, str, np.ndarray, np.ndarray]:
    return "Forces", "meV/Å", "eV/Å", "force component", parity.forces_true, parity.forces_pred


def _panel(
    figure: Figure,
    above: Axes,
    below: Axes,
    name: str,
    unit: str,
    axis_unit: str,
    what: str,
    true: np.ndarray,
    pred: np.ndarray,
) -> None:
    error = (pred - true) * (1.0 if unit == axis_unit else MEV)
    kept = np.isfinite(true) & np.isfinite(error)
    if not kept.any():
        above.set_title(f"{name}   no label with a finite prediction")
        return
    mae, rmse = np.abs(error[kept]).mean(), np.sqrt(np.square(error[kept]).mean())
    above.set_title(f"{name}\nMAE {mae:.3g}, RMSE {rmse:.3g} {unit}")
    above.axline((0, 0), slope=1, color=style.MUTED, linewidth=0.8, zorder=0.9)
    above.set_ylabel(f"predicted ({axis_unit})")
    # A handful of outliers must not squeeze the bulk of the errors into one line.
    widest = max(np.quantile(np.abs(error[kept]), 0.998) * 1.15, 1e-9)
    inside = kept & (np.abs(error) <= widest)
    drawn = _points(above, true[kept], pred[kept], gridsize=60)
    _points(below, true[inside], error[inside], gridsize=(60, 20))
    below.axhline(0, color=style.MUTED, linewidth=0.8, zorder=0)
    below.set_ylim(-widest, widest)
    below.set_ylabel(f"error ({unit})")
    below.set_xlabel(f"reference {what} ({axis_unit})")
    outside = int(kept.sum() - inside.sum())
    if outside:
        below.text(
            0.99,
            0.96,
            f"{outside:,} further out, up to {np.abs(error[kept]).max():,.3g}",
            transform=below.transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=style.MUTED,
        )
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=above, label="count", pad=0.01, aspect=30)
        bar.outline.set_visible(False)


def _points(
    axes: Axes, x: np.ndarray, y: np.ndarray, *, gridsize: int | tuple[int, int]
) -> PolyCollection | None:
    """Points, or where there are many their density; then returns what a colour bar explains."""
    if len(x) < FEW:
        axes.plot(x, y, ".", markersize=4, color=style.MODEL, alpha=0.6)
        return None
    return axes.hexbin(
        x, y, gridsize=gridsize, bins="log", cmap=style.DENSITY, mincnt=1, linewidths=0
    )
