"""The same numbers for a terminal: tables of rich, one function per kind of result."""

from collections.abc import Iterable
from typing import Any

from ase.data import chemical_symbols
from rich.table import Table

from equipoise.engines.drift import Drift
from equipoise.engines.md_summary import MDSummary
from equipoise.report.published import published_for
from equipoise.report.run_folder import title_of
from equipoise.report.tables import Grid, Record
from equipoise.train import Evaluation


def evaluation_table(
    evaluation: Evaluation, *, model: str, data: str, record: Record | None = None
) -> Table:
    """Errors between those of the mean predictor and, where known, published ones.

    Args:
        evaluation: what was measured.
        model, data: what of, and on what.
        record: its `as_dict`, if that has been made already.
    """
    record = evaluation.as_dict() if record is None else record
    table = Table(title=f"Errors on {data}", title_justify="left")
    table.add_column("model")
    columns = [
        ("energy\nMAE meV", "energy_mae_mev", "energies"),
        ("energy\nRMSE meV", "energy_rmse_mev", "energies"),
        ("forces\nMAE meV/Å", "force_mae_mev", "force_components"),
        ("forces\nRMSE meV/Å", "force_rmse_mev", "force_components"),
    ]
    if record["labels"]["stress_components"]:
        columns.append(("stress\nMAE meV/Å³", "stress_mae_mev", "stress_components"))
    for heading, *_ in columns:
        table.add_column(heading, justify="right")
    # A NaN is a dash where there was no label, and a NaN where the prediction was one.
    for name, each, look in (
        ("mean predictor", evaluation.mean_predictor, "dim"),
        (model, evaluation.errors, "bold"),
    ):
        values = [
            getattr(each, error) if record["labels"][of] else None for _, error, of in columns
        ]
        table.add_row(name, *map(_number, values), style=look)
    bounds = [record["intervals"][error] for _, error, _ in columns]
    if any(bounds):
        level = f"{100 * record['bootstrap']['level']:g} % interval"
        table.add_row(level, *("" if each is None else _range(each) for each in bounds))
    for each in published_for(data):
        row = (_number(each.energy_mae_mev), "", _number(each.force_mae_mev), "")
        table.add_row(f"{each.model} (published)", *row, style="dim")
    if published_for(data):
        table.title += " (published: trained at full size on GPUs)"
    table.caption = (
        f"{evaluation.structures:,} structures, {evaluation.passes_mean:.1f} passes and "
        f"{_number(1000 * evaluation.seconds_per_structure)} ms each"
        + (f", {evaluation.unconverged} did not converge" if evaluation.unconverged else "")
        + (f", {evaluation.non_finite} with NaN or infinity" if evaluation.non_finite else "")
    )
    table.caption_justify = "left"
    return table


def grid_table(grid: Grid) -> Table:
    """A table of numbers; units stand below their names, and intervals below what they belong to."""
    rows = [[cell.replace(" [", "\n[") for cell in row] for row in grid.rows]
    table = Table(
        title=grid.title,
        title_justify="left",
        caption=grid.note or None,
        caption_justify="left",
        show_lines=any("\n" in cell for row in rows for cell in row),
    )
    names = [line for row in rows for line in row[0].split("\n")]
    for index, heading in enumerate(grid.headings):
        table.add_column(
            heading.replace(" (", "\n("),
            justify="left" if index == 0 else "right",
            overflow="fold",
            # Names are there to be copied: they stay whole while there is room.
            no_wrap=index == 0 and max(map(len, names), default=0) <= 24,
        )
    for row in rows:
        table.add_row(*row)
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
        drift = Drift(
            summary.drift_mev_per_atom_per_ps,
            summary.drift_standard_error_mev_per_atom_per_ps,
            summary.fluctuation_mev_per_atom,
        )
        said = f"{drift} meV/atom/ps, fluctuation {drift.scatter:.2g} meV/atom"
        rows.append(("energy drift", said))
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
    split = f", split {section.get('split')}" if section.get("source") == "rmd17" else ""
    return f"{title_of(section)}{split}"


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


def _range(bounds: list[float]) -> str:
    return "–".join(map(_number, bounds))
