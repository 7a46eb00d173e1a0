"""The numbers of a run: a few large ones, and the table beside what is published."""

from html import escape
from typing import Any

import numpy as np

from equipoise.report.plots import drift
from equipoise.report.published import published_for
from equipoise.report.run_folder import RunFolder
from equipoise.report.tables import Grid, interval, interval_note


def cards(run: RunFolder) -> list[tuple[str, str]]:
    """The headline numbers the run has, as (value with unit, what it is)."""
    found: list[tuple[str, str]] = []
    evaluation = run.evaluation or {}
    if _is_number(evaluation.get("force_mae_mev")):
        found.append((f"{evaluation['force_mae_mev']:.3g} meV/Å", "force error (MAE)"))
    if _is_number(evaluation.get("energy_mae_mev")):
        found.append((f"{evaluation['energy_mae_mev']:.3g} meV", "energy error (MAE)"))
    if run.md_log and "passes" in run.md_log:
        warm = np.nanmean(run.md_log["passes"])
        if run.md_cold:
            cold = np.nanmean(run.md_cold["passes"])
            found.append((f"{warm:.1f} vs {cold:.1f}", "passes per step, reused vs from nothing"))
        else:
            found.append((f"{warm:.1f}", "passes per step, reused"))
    if run.md_log and "total_ev" in run.md_log:
        line = drift(run.md_log)
        if line is not None and run.n_atoms:
            found.append((f"{line.of_each(run.n_atoms)} meV", "energy drift per atom and ps"))
    if run.log and "seconds" in run.log:
        found.append((_duration(float(np.nanmax(run.log["seconds"]))), "training time"))
    return found


def results_table(run: RunFolder) -> str | None:
    """The HTML table of this run's errors between the mean predictor and published models."""
    evaluation = run.evaluation
    if not evaluation:
        return None
    rows: list[str] = []
    intervals = evaluation.get("intervals") or {}
    mean = evaluation.get("mean_predictor") or {}
    rows.append(
        _row(
            "Mean predictor",
            mean.get("energy_mae_mev"),
            mean.get("force_mae_mev"),
            "training-set mean energy, zero forces: what knowing nothing scores",
        )
    )
    rows.append(
        _row(
            "This run",
            evaluation.get("energy_mae_mev"),
            evaluation.get("force_mae_mev"),
            _about_this_run(run),
            bounds=(intervals.get("energy_mae_mev"), intervals.get("force_mae_mev")),
        )
    )
    for each in published_for(run.data_name):
        note = f"published [{each.reference}]: full-size networks, trained on GPUs"
        rows.append(_row(each.model, each.energy_mae_mev, each.force_mae_mev, note))
    head = "<tr><th>Model</th><th>Energy MAE (meV)</th><th>Force MAE (meV/Å)</th><th>How</th></tr>"
    sources = sorted({(each.reference, each.source) for each in published_for(run.data_name)})
    notes = "".join(
        f'<p class="source">[{escape(key)}] {escape(text)}</p>' for key, text in sources
    )
    if any(intervals.values()):
        notes = f'<p class="source">{escape(interval_note(evaluation))}</p>{notes}'
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>{notes}'


def html_table(grid: Grid) -> str:
    """A table of numbers and what is to be known to read it."""
    head = "".join(f"<th>{escape(each)}</th>" for each in grid.headings)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_quiet_interval(cell)}</td>' for cell in row)}</tr>"
        for row in grid.rows
    )
    note = f'<p class="source">{escape(grid.note)}</p>' if grid.note else ""
    table = f'<table class="numbers"><tr>{head}</tr>{rows}</table>'
    return f'<div class="scroll">{table}</div>{note}'


def _quiet_interval(cell: str) -> str:
    value, bracket, rest = escape(cell).partition(" [")
    return f'{value} <span class="interval">[{rest}</span>' if bracket else value


def _about_this_run(run: RunFolder) -> str:
    evaluation = run.evaluation or {}
    parts = []
    if _is_number(evaluation.get("structures")):
        data = f" of {evaluation['data']}" if evaluation.get("data") else ""
        parts.append(f"on {evaluation['structures']:,} structures{data}")
    if run.log and "seconds" in run.log:
        parts.append(f"trained for {_duration(float(np.nanmax(run.log['seconds'])))}")
    if _is_number(evaluation.get("energy_rmse_mev")) and _is_number(
        evaluation.get("force_rmse_mev")
    ):
        parts.append(
            f"RMSE {evaluation['energy_rmse_mev']:.3g} meV, "
            f"{evaluation['force_rmse_mev']:.3g} meV/Å"
        )
    if _is_number(evaluation.get("passes_mean")):
        parts.append(f"{evaluation['passes_mean']:.1f} passes per structure")
    if evaluation.get("unconverged"):
        parts.append(f"{evaluation['unconverged']} solves did not converge")
    if evaluation.get("non_finite"):
        parts.append(f"{evaluation['non_finite']} predictions not finite")
    return "; ".join(parts)


def _row(
    model: str,
    energy: Any,
    force: Any,
    note: str,
    *,
    bounds: tuple[list[float] | None, list[float] | None] | None = None,
) -> str:
    """A row of the results; with `bounds` (of the energy and the force error) it is that of this run."""
    cells = ""
    for value, each in zip((energy, force), bounds or (None, None), strict=True):
        between = "" if each is None else f'<br><span class="interval">{interval(each)}</span>'
        cells += f"<td>{f'{value:.3g}' if _is_number(value) else '–'}{between}</td>"
    opening = '<tr class="ours">' if bounds is not None else "<tr>"
    return f"{opening}<td>{escape(model)}</td>{cells}<td>{escape(note)}</td></tr>"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
