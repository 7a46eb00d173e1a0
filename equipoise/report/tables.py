"""Tables of an evaluation, as text: the terminal and the page show the same cells.

They are made from the records in `evaluation.json` and `comparison.json`, so that a run measured long ago shows as well as one
measured now; what an older file does not hold is left out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from equipoise.report.published import published_for

MOST_MOLECULES = 20
Record = Mapping[str, Any]

# error in the records -> what it is called, and in which unit
ERRORS = {
    "energy_mae_mev": ("energy MAE", "meV"),
    "energy_mae_mev_per_atom": ("energy MAE", "meV/atom"),
    "force_mae_mev": ("force MAE", "meV/Å"),
    "force_rmse_mev": ("force RMSE", "meV/Å"),
    "stress_mae_mev": ("stress MAE", "meV/Å³"),
}
# Those that are shown with intervals; all of them in a terminal would not fit.
COMPARED = ("energy_mae_mev", "force_mae_mev", "stress_mae_mev")


@dataclass(frozen=True)
class Grid:
    """A table before anybody has decided how it looks."""

    title: str
    headings: tuple[str, ...]  # the first belongs to the names of the rows
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def element_grid(record: Record) -> Grid | None:
    """Force errors by element; None where there were no forces."""
    elements = record.get("elements") or []
    rows = [
        (
            str(each["element"]),
            f"{each['atoms']:,}",
            number(each.get("force_mae_mev")),
            number(each.get("force_rmse_mev")),
        )
        for each in sorted(elements, key=lambda each: atomic_numbers[each["element"]])
    ]
    headings = ("element", "atoms", "force MAE (meV/Å)", "force RMSE (meV/Å)")
    return Grid("Errors by element", headings, tuple(rows)) if rows else None


def molecule_grid(record: Record) -> Grid | None:
    """Errors by molecule, the largest first; None for a single molecule, whose errors are those of the whole set."""
    molecules = record.get("molecules") or []
    if len(molecules) < 2:
        return None
    shown = [name for name in _known(molecules) if name != "force_rmse_mev"]  # a narrower table
    worst = "force_mae_mev" if "force_mae_mev" in shown else "energy_mae_mev_per_atom"
    ranked = sorted(molecules, key=lambda each: -(_finite(each.get(worst)) or 0.0))
    rows = [
        (str(each["name"]), f"{each['structures']:,}", *(with_interval(each, n) for n in shown))
        for each in ranked[:MOST_MOLECULES]
    ]
    headings = ("molecule", "structures", *map(heading, shown))
    if any(each.get("unconverged") for each in molecules):
        headings += ("not converged",)
        rows = [
            (*row, f"{each['unconverged']:,}")
            for row, each in zip(rows, ranked[:MOST_MOLECULES], strict=True)
        ]
    left_out = len(molecules) - len(rows)
    note = f"{left_out} more with smaller errors stand in evaluation.json." if left_out else ""
    return Grid("Errors by molecule", headings, tuple(rows), note)


def worst_grid(record: Record) -> Grid | None:
    """The structures with the largest errors, by their number in the set."""
    worst = record.get("worst") or []
    rows = [
        (
            str(each["index"]),
            str(each["molecule"]),
            number(each.get("energy_error_mev"), sign=True),
            number(each.get("force_mae_mev")),
            number(each.get("force_worst_mev")),
            _atom(each) + ("" if each.get("converged", True) else ", not converged"),
        )
        for each in worst
    ]
    headings = (
        "structure",
        "molecule",
        "energy error (meV)",
        "force MAE (meV/Å)",
        "largest force error (meV/Å)",
        "on atom",
    )
    note = "Structures and atoms are counted from 0, in the order of the data."
    return Grid("Worst structures", headings, tuple(rows), note) if rows else None


def property_grid(records: Mapping[str, Record]) -> Grid:
    """Cost, convergence and symmetry: a column for each potential."""
    rows = [
        (name, *(cell(record) for record in records.values())) for name, cell in _PROPERTIES.items()
    ]
    known = tuple(row for row in rows if set(row[1:]) != {"–"})
    note = (
        "Contraction: what a pass leaves of an error at the fixed point. Equivariance error: change of the forces, beyond that of "
        "their direction, when a structure is rotated or mirrored, as a part of the forces."
    )
    return Grid("Cost and symmetry", ("", *records), known, note)


def comparison_grid(comparison: Record) -> Grid:
    """Errors of every potential, with intervals."""
    models = comparison["models"]
    shown = _known(models.values())
    mean = next(iter(models.values())).get("mean_predictor") or {}
    rows = [("mean predictor", *(number(mean.get(name)) for name in shown))]
    rows += [(name, *(with_interval(each, n) for n in shown)) for name, each in models.items()]
    published = {
        f"{each.model} (published)": {name: getattr(each, name, None) for name in shown}
        for each in published_for(comparison["data"])
    }
    rows += [
        (name, *("–" if value is None else f"{value:g}" for value in each.values()))
        for name, each in published.items()
    ]
    note = interval_note(comparison)
    title = f"Errors on {comparison['data']}, {comparison['structures']:,} structures"
    return Grid(title, ("model", *map(heading, shown)), tuple(rows), note)


def difference_grid(comparison: Record) -> Grid:
    """By how much the errors of the other potentials are larger than those of the first."""
    differences = comparison["differences"]
    shown = [name for name in _known(differences.values()) if name in COMPARED]
    rows = [
        (name, *(_difference(each.get(n)) for n in shown)) for name, each in differences.items()
    ]
    note = (
        "Below 0 is better than the reference. ≈: the interval contains 0, so this test set does not tell which is better. "
        "Another training seed may move both."
    )
    title = f"Difference from {comparison['reference']}, structure by structure"
    return Grid(title, ("model", *map(heading, shown)), tuple(rows), note)


def heading(name: str) -> str:
    what, unit = ERRORS[name]
    return f"{what} ({unit})"


def with_interval(record: Record, name: str) -> str:
    """An error and, for the main ones, where the bootstrap puts it: ``6.49 [6.20, 6.80]``."""
    bounds = (record.get("intervals") or {}).get(name) if name in COMPARED else None
    text = number(record.get(name))
    return text if bounds is None else f"{text} {interval(bounds)}"


def interval(bounds: list[float]) -> str:
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def interval_note(record: Record) -> str:
    """What the brackets are; empty for a record without."""
    bootstrap = record.get("bootstrap") or {}
    if not bootstrap:
        return ""
    block = bootstrap.get("block", 1)
    drawn = "structures" if block == 1 else f"blocks of {block} consecutive structures"
    return f"In brackets: {100 * bootstrap['level']:g} % interval, {drawn} drawn anew {bootstrap['replicates']:,} times."


def number(value: Any, *, sign: bool = False) -> str:
    """Three digits; a dash where there is nothing."""
    value = _finite(value)
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:+,.0f}" if sign else f"{value:,.0f}"
    return f"{value:+#.3g}" if sign else f"{value:#.3g}"  # with its zeros: 2.00 beside 3.67


def _known(records: Iterable[Record]) -> list[str]:
    """The errors that at least one of the records has."""
    records = list(records)
    return [name for name in ERRORS if any(each.get(name) is not None for each in records)]


def _atom(worst: Record) -> str:
    atom = worst.get("force_worst_atom")
    return "–" if atom is None else f"{worst.get('force_worst_element') or ''} {atom}".strip()


def _passes(record: Record) -> str:
    forward, adjoint = (_finite(record.get(f"passes_{each}")) for each in ("forward", "adjoint"))
    # An explicit network counts none.
    return f"{forward:.1f} + {adjoint or 0:.1f}" if forward else "–"


def _contraction(record: Record) -> str:
    mean, largest = (_examined(record, f"contraction_{each}") for each in ("mean", "max"))
    return "–" if mean is None else f"{mean:.2f} (largest {largest:.2f})"


def _symmetry(record: Record, name: str) -> str:
    value = _finite((_examined(record, name) or {}).get("force_relative"))
    return "–" if value is None else f"{value:.0e}"


def _count(value: Any) -> str:
    return "–" if _finite(value) is None else f"{value:,}"


def _milliseconds(seconds: Any) -> str:
    seconds = _finite(seconds)
    return "–" if seconds is None else number(1000 * seconds)


def _examined(record: Record, name: str) -> Any:
    return (record.get("examination") or {}).get(name)


_PROPERTIES: dict[str, Callable[[Record], str]] = {
    "parameters": lambda record: _count(_examined(record, "parameters")),
    "passes, forward + adjoint": _passes,
    "structures not converged": lambda record: _count(record.get("unconverged")),
    "ms per structure, in batches": lambda record: _milliseconds(
        record.get("seconds_per_structure")
    ),
    "ms per structure, alone": lambda record: _milliseconds(_examined(record, "seconds_alone")),
    "contraction": _contraction,
    "equivariance error, rotation": lambda record: _symmetry(record, "rotation"),
    "equivariance error, mirror": lambda record: _symmetry(record, "mirror"),
}


def _difference(difference: Record | None) -> str:
    if difference is None:
        return "–"
    low, high = (number(difference[end], sign=True) for end in ("low", "high"))
    mark = "" if difference["certain"] else "≈ "
    return f"{mark}{number(difference['value'], sign=True)} [{low}, {high}]"


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    return value
