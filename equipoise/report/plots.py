"""The graphs of a run over time: each takes arrays and returns a Figure; none writes a file."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from equipoise.engines.drift import Drift, drift_of
from equipoise.report import style
from equipoise.report.published import Published
from equipoise.report.run_folder import Table

MEV = 1000.0  # meV per eV


def learning_curve(log: Table, published: Sequence[Published] = ()) -> Figure:
    """Force and energy errors over the epochs, logarithmic, with published levels dashed.

    Args:
        log: the columns of log.csv; needs `epoch` and at least one of the four errors.
        published: levels to draw.

    Raises:
        ValueError: if `log` holds no error at all.
    """
    epoch = log.get("epoch")
    quantities = (
        ("force", "Force MAE (meV/Å)", [each.force_mae_mev for each in published]),
        ("energy", "Energy MAE (meV per structure)", [each.energy_mae_mev for each in published]),
    )
    names = [
        f"{part}_{quantity}_mae_mev" for quantity, *_ in quantities for part in ("train", "valid")
    ]
    if epoch is None or not any(_finite(log.get(name)).size for name in names):
        raise ValueError(f"log.csv holds no finished epoch: expected epoch and {', '.join(names)}")

    figure = style.new_figure(9, 3.9)
    for axes, (quantity, label, levels) in zip(figure.subplots(1, 2), quantities, strict=True):
        train, valid = (log.get(f"{part}_{quantity}_mae_mev") for part in ("train", "valid"))
        _curve(axes, epoch, train, style.OTHER, "training")
        _curve(axes, epoch, valid, style.MODEL, "validation", width=2.2)
        _levels(axes, [each.model for each in published], levels)
        axes.set_yscale("log")
        if levels:
            axes.set_ylim(bottom=min(axes.get_ylim()[0], 0.6 * min(levels)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        best = _finite(valid)
        axes.set_title(f"best validation {best.min():.3g}" if best.size else "no validation yet")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right")
    return figure


def solving_plot(log: Table) -> Figure:
    """Passes of the solves in training and the contraction of the map they iterate, over the epochs.

    Args:
        log: the columns of log.csv; needs `epoch` and `passes`.
    """
    epoch, failed = log["epoch"], log.get("unconverged")
    figure = style.new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    for name, colour, label in (
        ("passes", style.MODEL, "to the fixed point"),
        ("adjoint_passes", style.KINETIC, "to its adjoint"),
    ):
        _curve(left, epoch, log.get(name), colour, label)
    left.set_ylim(bottom=0)
    left.set(xlabel="epoch", ylabel="passes per training structure")
    count = int(np.nansum(failed)) if failed is not None else 0
    left.set_title(f"{count:,} solves did not converge" if count else "every solve converged")
    if left.get_legend_handles_labels()[0]:
        left.legend(loc="best")

    contraction = log.get("contraction")
    _curve(right, epoch, contraction, style.MODEL, "", width=2.2)
    right.axhline(1, color=style.COLD, linewidth=1, linestyle=(0, (4, 3)))
    right.set_ylim(bottom=0)
    right.set(xlabel="epoch", ylabel="contraction, worst of some")
    known = _finite(contraction)
    right.set_title(f"{known[-1]:.2g} at the end" if known.size else "not logged")
    return figure


def energy_trajectory(md_log: Table, *, n_atoms: int | None = None) -> Figure:
    """Potential, kinetic and total energy along a trajectory, and what the ensemble conserves magnified.

    Args:
        md_log: the columns of md/log.csv.
        n_atoms: to state the drift per atom.
    """
    time = md_log["time_fs"] / 1000  # ps
    figure = style.new_figure(9, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    parts = (("potential", style.OTHER), ("kinetic", style.KINETIC), ("total", style.MODEL))
    for name, colour in parts:
        energy = md_log[f"{name}_ev"]
        above.plot(time, energy - energy[0], color=colour, label=name, linewidth=1.2)
    above.set_ylabel("change since the start (eV)")
    above.legend(ncols=3, loc="upper right", bbox_to_anchor=(1, 1.17))
    temperature = _finite(md_log.get("temperature_k"))
    above.set_title(f"mean temperature {temperature.mean():.0f} K" if temperature.size else "")

    kept = conserved_energy(md_log)
    shown = md_log["total_ev"] if kept is None else kept
    total = (shown - shown[0]) * MEV
    below.plot(time, total, color=style.MODEL, linewidth=0.9)
    # With a thermostat or barostat, their energy belongs to what is conserved.
    bath = kept is not None and not np.allclose(kept, md_log["total_ev"], rtol=0, atol=1e-9)
    below.set_ylabel("total with bath (meV)" if bath else "total (meV)")
    below.set_xlabel("time (ps)")
    line = drift(md_log)
    if line is not None:
        fit = np.polyval(np.polyfit(time, total, 1), time)
        below.plot(time, fit, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
        each = f" = {line.of_each(n_atoms)} meV/atom/ps" if n_atoms else ""
        below.set_title(f"drift {line} meV/ps{each},   fluctuation {line.scatter:.2g} meV")
    elif kept is None:
        below.set_title("total energy: exchanged with the thermostat")
    return figure


def conserved_energy(md_log: Table) -> np.ndarray | None:
    """What the exact dynamics would keep constant, eV; None where there is no such thing (Langevin)."""
    energy = md_log.get("conserved_ev")
    return None if energy is None or not np.isfinite(energy).all() else energy


def drift(md_log: Table) -> Drift | None:
    """Of the conserved energy; None below three steps, or where none is conserved."""
    energy = conserved_energy(md_log)
    return None if energy is None else drift_of(md_log["time_fs"] / 1000, energy * MEV)


def passes_plot(md_log: Table, cold: Table | None) -> Figure:
    """Passes through the network per MD step: reused fixed points against solves from nothing.

    Args:
        md_log: the columns of md/log.csv; `passes` is the forward solve, `adjoint_passes` the one
            for forces.
        cold: the columns of md/cold_passes.csv, a sample of the same frames solved from nothing.
    """
    step, warm = md_log["step"], md_log["passes"]
    figure = style.new_figure(9, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.15))
    left.plot(step, warm, ".", markersize=2.5, alpha=0.35, color=style.MODEL, rasterized=True)
    window = max(1, min(100, len(warm) // 20))
    left.plot(*_running_mean(step, warm, window), color=style.MODEL, label="reused")
    if cold is not None:
        left.plot(
            cold["step"],
            cold["passes"],
            "o-",
            markersize=3.5,
            color=style.COLD,
            label="from nothing",
        )
    left.set_ylim(bottom=0)
    left.set_xlabel("MD step")
    left.set_ylabel("passes to the fixed point")
    left.legend(loc="upper right", bbox_to_anchor=(1, 1.16), ncols=2)
    left.set_title("Per step")

    bars = [("reused", _mean(warm), style.MODEL)]
    adjoint = _mean(md_log.get("adjoint_passes"))
    if np.isfinite(adjoint):
        bars.append(("reused,\nforces", adjoint, style.KINETIC))
    if cold is not None:
        bars.insert(0, ("from\nnothing", _mean(cold["passes"]), style.COLD))
        cold_adjoint = _mean(cold.get("adjoint_passes"))
        if np.isfinite(cold_adjoint):
            bars.insert(1, ("from\nnothing,\nforces", cold_adjoint, style.OTHER))
    labels, heights, colours = zip(*bars, strict=True)
    drawn = right.bar(range(len(bars)), heights, color=colours, width=0.62)
    right.bar_label(drawn, fmt="%.1f", padding=2, fontsize=9)
    right.set_xticks(range(len(bars)), labels, fontsize=8.5)
    right.grid(visible=False, axis="x")
    right.margins(y=0.14)
    right.set_title("Mean")
    return figure


def _curve(
    axes: Axes, x: np.ndarray, y: np.ndarray | None, colour: str, label: str, *, width: float = 1.3
) -> None:
    kept = np.isfinite(y) & (y > 0) if y is not None else np.zeros(0, bool)
    if kept.any():
        # One finished epoch is a point, which a line would not show.
        marker = "o" if kept.sum() < 15 else None
        axes.plot(
            x[kept],
            y[kept],
            color=colour,
            label=label,
            linewidth=width,
            marker=marker,
            markersize=4,
        )


def _levels(axes: Axes, models: Sequence[str], values: Sequence[float]) -> None:
    at: dict[float, list[str]] = defaultdict(list)
    for model, value in zip(models, values, strict=True):
        at[value].append(model)
    for index, (value, names) in enumerate(sorted(at.items())):
        # The lowest level is named below its line, so that neighbours on a log axis do not collide.
        style.label_line(
            axes, value, f"{', '.join(names)}  {value:g}", below=index == 0 and len(at) > 1
        )


def _finite(values: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if values is None else values[np.isfinite(values)]


def _mean(values: np.ndarray | None) -> float:
    finite = _finite(values)
    return float(finite.mean()) if finite.size else float("nan")


def _running_mean(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    kept = np.isfinite(y)
    weights = np.ones(window) / window
    return np.convolve(x[kept], weights, "valid"), np.convolve(y[kept], weights, "valid")
