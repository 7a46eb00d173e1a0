"""The same numbers for a terminal: tables of rich, one function per kind of result."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from rich.table import Table

from equipoise.engines.md_summary import MDSummary
from equipoise.report.published import published_for
from equipoise.train import Evaluation


def evaluation_table(evaluation: Evaluation, *, model: str, data: str) -> Table:
    """Errors between those of the mean predictor and, where known, published ones."""
    table = Table(title=f"Errors on {data}", title_justify="left")
    table.add_column("model")
    for unit in ("energy\nMAE meV", "energy\nRMSE meV", "forces\nMAE meV/Å", "forces\nRMSE meV/Å"):
        table.add_column(unit, justify="right")
    ours, mean = evaluation.errors, evaluation.mean_predictor
    # A NaN is a dash where there was no label, and a NaN where the prediction was one.
    labels = (evaluation.energy_true, evaluation.forces_true)
    energies, forces = (not np.isnan(each).all() for each in labels)
    for name, each, look in (("mean predictor", mean, "dim"), (model, ours, "bold")):
        numbers = (
            each.energy_mae_mev,
            each.energy_rmse_mev,
            each.force_mae_mev,
            each.force_rmse_mev,
        )
        known = (energies, energies, forces, forces)
        shown = (_number(v if k else None) for v, k in zip(numbers, known, strict=True))
        table.add_row(name, *shown, style=look)
    for each in published_for(data):
        row = (_number(each.energy_mae_mev), "", _number(each.force_mae_mev), "")
        table.add_row(f"{each.model} (published)", *row, style="dim")
    if published_for(data):
        table.title += " (published: trained at full size on GPUs)"
    table.caption = (
        f"{evaluation.structures} structures, {evaluation.passes_mean:.1f} passes and "
        f"{1000 * evaluation.seconds_per_structure:.2g} ms each"
        + (f", {evaluation.unconverged} did not converge" if evaluation.unconverged else "")
        + (f", {evaluation.non_finite} with NaN or infinity" if evaluation.non_finite else "")
    )
    table.caption_justify = "left"
    return table


def md_table(summary: MDSummary) -> Table:
    """What a simulation came to."""
    cold = ""
    if summary.mean_cold_passes is not None:
        cold = (
            f"   (from nothing: {summary.mean_cold_passes:.1f} + "
            f"{summary.mean_cold_adjoint_passes:.1f})"
        )
    rows = [
        ("simulated", f"{summary.time_ps:g} ps of {summary.formula}, {summary.steps:,} steps"),
        ("mean temperature", f"{summary.mean_temperature_k:.0f} K"),
        (
            "passes per step",
            f"{summary.mean_passes:.1f} + {summary.mean_adjoint_passes:.1f} for the forces{cold}",
        ),
        (
            "speed",
            f"{1000 * summary.seconds_per_step:.2g} ms per step, {summary.ns_per_day:.2g} ns/day",
        ),
    ]
    if summary.drift_mev_per_atom_per_ps is not None:
        drift = (
            f"{summary.drift_mev_per_atom_per_ps:+.2g} meV/atom/ps, "
            f"fluctuation {summary.fluctuation_mev_per_atom:.2g} meV/atom"
        )
        rows.append(("energy drift", drift))
    return _facts(rows)


def model_table(header: dict[str, Any], *, parameters: int) -> Table:
    """What a model file says of itself.

    Args:
        header: the JSON of the file, as `equipoise.potentials.describe` returns it.
        parameters: number of weights.
    """
    config, statistics, extra = header["config"], header["statistics"], header.get("extra") or {}
    backbone = config["backbone"]
    recipe, validation = extra.get("recipe") or {}, extra.get("validation") or {}
    elements = [chemical_symbols[number] for number in statistics["elements"]]
    rows = [
        ("kind", config["kind"]),
        ("elements", " ".join(elements)),
        ("cutoff", f"{backbone['cutoff']:g} Å"),
        ("precision", config["dtype"]),
        ("backbone", ", ".join(f"{key} {value}" for key, value in backbone.items())),
        (
            "reference energies",
            "  ".join(
                f"{symbol} {energy:.4f}"
                for symbol, energy in zip(elements, statistics["reference_energies"], strict=True)
            )
            # Of a single molecule only the sum is determined: H comes out at -616 eV for ethanol.
            + "  eV (a fit: only their sum over a molecule means anything)",
        ),
        ("training forces", f"{1000 * statistics['force_rms']:.0f} meV/Å rms"),
        ("parameters", f"{parameters:,}"),
    ]
    if config["kind"] == "equilibrium":
        solver, adjoint = config["solver"], config["adjoint"]
        tolerances = f"{solver['tolerance']:g}, adjoint {adjoint['tolerance']:g}"
        rows.insert(1, ("tolerance", tolerances))
    if "force_mae_mev" in validation:
        errors = (
            f"energy {_number(validation['energy_mae_mev'])} meV, "
            f"forces {_number(validation['force_mae_mev'])} meV/Å (MAE)"
        )
        rows.append(("validation", errors))
    if "data" in recipe:
        rows.append(("trained on", _data(recipe["data"])))
    return _facts(rows)


def recipe_table(keys: Iterable[tuple[str, Any, str]]) -> Table:
    """Every key of a recipe with its default and meaning."""
    table = Table()
    for heading in ("key", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for key, default, meaning in keys:
        table.add_row(key, "" if default is None else str(default), meaning)
    return table


def _data(section: dict[str, Any]) -> str:
    if section.get("source") == "rmd17":
        return f"rmd17:{section.get('molecule')}, split {section.get('split')}"
    return str(section.get("train"))


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _number(value: float | None) -> str:
    if value is None:  # there was no such label
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
