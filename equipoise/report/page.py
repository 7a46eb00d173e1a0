"""One page about one run: every picture inside the file, nothing fetched when it is viewed."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from equipoise.report import style
from equipoise.report.molecule import filmstrip, viewer_frames
from equipoise.report.plots import energy_trajectory, learning_curve, parity_plots, passes_plot
from equipoise.report.published import published_for
from equipoise.report.run_folder import RunFolder, read_run
from equipoise.report.summary import cards, results_table


@dataclass(frozen=True)
class _Picture:
    """A section of the page that is one picture."""

    file: str  # written beside the page
    title: str
    about: str  # HTML: what is seen, and how to read it
    draw: Callable[[RunFolder], Figure | None]  # None: the run has not got this far
    absent: str  # HTML: how to get it


def write_report(folder: str | Path) -> Path:
    """Writes report/index.html and its PNGs into a run folder.

    What the run has not produced yet is said to be "not run", with the command that produces it.

    Args:
        folder: a run folder, as `equipoise train`, `md` and `quickstart` leave it.

    Returns:
        The path of index.html.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run.
    """
    run = read_run(folder)
    target = run.folder / "report"
    target.mkdir(exist_ok=True)
    problems = list(run.problems)
    with mpl.rc_context(style.RC):
        sections = [_picture_section(picture, run, target, problems) for picture in _PICTURES]
    html = _page(run, sections, problems)
    path = target / "index.html"
    path.write_text(html, encoding="utf-8")
    return path


def _learning(run: RunFolder) -> Figure | None:
    return learning_curve(run.log, published_for(run.data_name)) if run.log else None


def _parity(run: RunFolder) -> Figure | None:
    return parity_plots(run.parity) if run.parity else None


def _energy(run: RunFolder) -> Figure | None:
    if not run.md_log:
        return None
    ensemble = str((run.md_summary or {}).get("ensemble", "nve")).lower()
    return energy_trajectory(run.md_log, n_atoms=run.n_atoms, conserved=ensemble == "nve")


def _passes(run: RunFolder) -> Figure | None:
    if not run.md_log or "passes" not in run.md_log:
        return None
    return passes_plot(run.md_log, run.md_cold)


def _film(run: RunFolder) -> Figure | None:
    return filmstrip(run.frames) if run.frames else None


_PICTURES = (
    _Picture(
        "learning_curve.png",
        "Learning curve",
        "Mean absolute errors after every epoch. Dashed: published test errors of full-size "
        "networks trained on GPUs, where we know of any for this data.",
        _learning,
        "<code>equipoise train RECIPE --folder RUN</code> writes log.csv.",
    ),
    _Picture(
        "parity.png",
        "Prediction against reference",
        "Every evaluated structure (left) and every force component (right); brighter is denser. "
        "Below, the errors, magnified.",
        _parity,
        "<code>equipoise evaluate MODEL --folder RUN</code> writes evaluation.npz.",
    ),
    _Picture(
        "energy.png",
        "Energy along the trajectory",
        "A conservative force field keeps the total energy of an isolated molecule; what is left "
        "is the integrator's ripple, and a drift if forces are not quite the energy's gradient.",
        _energy,
        "<code>equipoise md MODEL --folder RUN/md</code> writes md/log.csv.",
    ),
    _Picture(
        "passes.png",
        "Passes per step",
        "One pass is one application of the network's block. A solve that starts from the last "
        "steps' fixed points (reused) gives the same forces, to the solver's tolerance, as one "
        "from nothing; the passes it saves are the time it saves.",
        _passes,
        "<code>equipoise md MODEL --folder RUN/md</code> counts passes in md/log.csv.",
    ),
    _Picture(
        "molecule.png",
        "The molecule moving",
        "Drag to turn, space to play or pause.",
        _film,
        "<code>equipoise md MODEL --folder RUN/md</code> writes md/trajectory.extxyz.",
    ),
)


def _picture_section(picture: _Picture, run: RunFolder, target: Path, problems: list[str]) -> str:
    path = target / picture.file
    try:
        figure = picture.draw(run)
    except (ValueError, KeyError, IndexError) as error:
        # A column that another version names differently must not cost the other sections.
        problems.append(f"{picture.title}: cannot be drawn: {type(error).__name__}: {error}")
        figure = None
    if figure is None:
        path.unlink(missing_ok=True)  # an earlier report's picture would contradict this page
        return _section(picture.title, f'<p class="absent">Not run. {picture.absent}</p>')
    image = BytesIO()
    figure.savefig(image, format="png")
    path.write_bytes(image.getvalue())
    source = "data:image/png;base64," + base64.b64encode(image.getvalue()).decode("ascii")
    body = f'<img src="{source}" alt="{escape(picture.title)}">'
    if picture.draw is _film:
        body = _viewer(run) + body
    return _section(picture.title, f"<p>{picture.about}</p>{body}")


def _viewer(run: RunFolder) -> str:
    record = viewer_frames(run.frames)
    if record is None:
        return ""
    # "</" would end the script element wherever it stands.
    data = json.dumps(record, separators=(",", ":")).replace("</", "<\\/")
    return (
        '<div class="viewer" id="film"><canvas tabindex="0" role="img" '
        'aria-label="Animated ball-and-stick model of the simulated structure"></canvas>'
        '<div class="controls"><button type="button">Play</button>'
        '<input type="range" min="0" value="0" aria-label="frame"><output></output></div></div>'
        f"<script>{_resource('viewer.js')}\n"
        f'playMolecule(document.getElementById("film"), {data});</script>'
    )


def _page(run: RunFolder, sections: list[str], problems: list[str]) -> str:
    name = escape(run.folder.resolve().name)
    results = results_table(run)
    missing = '<p class="absent">Not run. <code>equipoise evaluate MODEL --folder RUN</code></p>'
    parts = [
        f"<header><h1>{name}</h1><p>{escape(_subtitle(run))}</p></header>",
        _cards(run),
        _problems(problems),
        _section("Results", results or missing),
        *sections,
        _recipe(run.recipe),
        "<footer>Errors are mean absolute errors; 1 kcal/mol = 43.36 meV. "
        "Made by <code>equipoise report</code>; this file stands alone and may be sent as it is."
        "</footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} · Equipoise</title><style>{_resource('page.css')}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _subtitle(run: RunFolder) -> str:
    return " · ".join(part for part in ("Equipoise run", run.data_name) if part)


def _cards(run: RunFolder) -> str:
    shown = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in cards(run)
    )
    return f'<div class="cards">{shown}</div>' if shown else ""


def _problems(problems: list[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    title = "<h2>Files that could not be shown</h2>"
    return f'<section class="problems">{title}<ul>{items}</ul></section>'


def _recipe(recipe: dict[str, Any] | None) -> str:
    if recipe is None:
        return _section("Recipe", '<p class="absent">Not run: there is no recipe.yaml.</p>')
    text = escape(OmegaConf.to_yaml(OmegaConf.create(recipe)))
    return f"<section><details><summary>Recipe</summary><pre>{text}</pre></details></section>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _resource(name: str) -> str:
    return files("equipoise.report").joinpath(name).read_text(encoding="utf-8")
