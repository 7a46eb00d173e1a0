"""Runs of benchmarks.rmd17 side by side: the file they are merged into, a table and a plot."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib

from benchmarks.record import RESULTS, write
from equipoise.report.published import Published, published_for

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

COLUMNS = {
    "parameters": ("weights", ",.0f"),
    "epochs": ("epochs", ".4g"),
    "seconds": ("training, s", ",.0f"),
    "cpu_seconds": ("processor, s", ",.0f"),
    "force_mae_mev": ("F, meV/Å", ".1f"),
    "energy_mae_mev": ("E, meV", ".1f"),
    "passes": ("test passes", ".1f"),
    "milliseconds": ("one prediction, ms", ".0f"),
    "peak_memory_mib": ("peak memory, MiB", ",.0f"),
    "training_memory_mib": ("of it training, MiB", ",.0f"),
}
MARKERS = "osD^vP*X"
Record = dict[str, Any]


def merge(records: Sequence[Record], command: str) -> list[Record]:
    """Put runs beside those of other calls, in the place of earlier ones of the same settings; returns all."""
    path = RESULTS / "rmd17.json"
    known = json.loads(path.read_text())["results"]["runs"] if path.exists() else []
    runs = {json.dumps(each["run"], sort_keys=True): each for each in [*known, *records]}
    ordered = [runs[key] for key in sorted(runs)]
    published = {name: [asdict(each) for each in _published(name)] for name in _molecules(ordered)}
    results = {"runs": ordered, "published": published}
    write("rmd17", command, results, seeds=sorted({each["run"]["seed"] for each in ordered}))
    plot(ordered)
    return ordered


def _molecules(runs: Sequence[Record]) -> list[str]:
    return sorted({each["run"]["molecule"] for each in runs}, reverse=True)


def _published(molecule: str) -> tuple[Published, ...]:
    return published_for(f"rmd17:{molecule}")


def comparisons(runs: Sequence[Record]) -> Iterator[tuple[Record, dict[str, list[Record]]]]:
    """Runs that differ in model and seed only: what they have in common, and the seeds of each model."""
    groups: dict[str, dict[str, list[Record]]] = {}
    for each in runs:
        common = {k: v for k, v in each["run"].items() if k not in ("model", "seed")}
        models = groups.setdefault(json.dumps(common), {})
        models.setdefault(each["run"]["model"], []).append(each)
    for common, models in groups.items():
        yield json.loads(common), dict(sorted(models.items()))


def _words(common: Record) -> str:
    clock = "" if common["max_seconds"] is None else f", at most {common['max_seconds']:g} s"
    changes = "".join(f", {change}" for change in common["changes"])
    device = "" if common["device"] == "cpu" else f", {common['device']}"
    return f"{common['channels']} channels, {common['epochs']} epochs{clock}{changes}{device}"


def table(runs: Sequence[Record]) -> str:
    """Markdown: means over seeds, errors with their standard deviation, and how far the published ones are."""
    text = []
    for common, models in comparisons(runs):
        text += [
            f"\n{common['molecule']}, {_words(common)}\n",
            "| model | seeds | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
            "|" + "---|" * (2 + len(COLUMNS)),
        ]
        for name, seeds in models.items():
            cells = [name, str(len(seeds))]
            for key, (_, style) in COLUMNS.items():
                values = [each[key] for each in seeds if each[key] is not None]
                cell = format(statistics.mean(values), style) if values else ""
                if key.endswith("mae_mev") and len(values) > 1:
                    cell += f" ± {statistics.stdev(values):.1g}"
                cells.append(cell)
            text.append("| " + " | ".join(cells) + " |")
        means = {
            name: statistics.mean(each["force_mae_mev"] for each in seeds)
            for name, seeds in models.items()
        }
        best = min(means, key=means.__getitem__)
        gaps = [
            f"{each.model} {each.force_mae_mev} meV/Å, {each.energy_mae_mev} meV ({means[best] / each.force_mae_mev:.1f})"
            for each in _published(common["molecule"])
        ]
        if gaps:
            text.append(
                f"\nPublished (in brackets: how many times the force error {best} has): {'; '.join(gaps)}."
            )
    return "\n".join(text)


def plot(runs: Sequence[Record]) -> None:
    """Force error against training time and number of weights, a row per molecule; colours are models, shapes settings."""
    molecules = _molecules(runs)
    colours = {
        name: f"C{i}" for i, name in enumerate(sorted({each["run"]["model"] for each in runs}))
    }
    marks: dict[str, str] = {}
    figure, axes = plt.subplots(
        len(molecules),
        2,
        squeeze=False,
        sharey="row",
        figsize=(10, 3.8 * len(molecules)),
        layout="constrained",
    )
    for common, models in comparisons(runs):
        row = axes[molecules.index(common["molecule"])]
        mark = marks.setdefault(_words(common), MARKERS[len(marks) % len(MARKERS)])
        for name, seeds in models.items():
            errors = [each["force_mae_mev"] for each in seeds]
            for axis, key in zip(row, ("seconds", "parameters"), strict=True):
                axis.plot([each[key] for each in seeds], errors, mark, color=colours[name])
    for molecule, row in zip(molecules, axes, strict=True):
        for axis, title in zip(row, ("training time, s", "weights"), strict=True):
            for i, each in enumerate(_published(molecule)):
                axis.axhline(each.force_mae_mev, color="0.6", lw=0.8, ls=":")
                place = (0.01 + 0.11 * i, each.force_mae_mev)
                axis.annotate(each.model, place, xycoords=("axes fraction", "data"), fontsize=7)
            axis.set(xscale="log", yscale="log", xlabel=title, title=molecule)
        row[0].set_ylabel("force MAE on the test set, meV/Å")
    for name, colour in colours.items():
        axes[0, 1].plot([], [], "o", color=colour, label=name)
    for words, mark in marks.items():
        axes[0, 1].plot([], [], mark, color="0.4", label=words)
    axes[0, 1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(RESULTS / "rmd17.png", dpi=150)
    plt.close(figure)
