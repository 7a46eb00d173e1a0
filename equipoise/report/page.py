"""One page about one run: every picture inside the file, nothing fetched when it is viewed."""

import base64
import json
from collections.abc import Callable
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from equipoise.report import style
from equipoise.report.molecule import viewer_frames
from equipoise.report.parts import PARTS, Part, film
from equipoise.report.run_folder import RunFolder, read_run
from equipoise.report.summary import cards, html_table, results_table
from equipoise.report.tables import property_grid


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
        sections = [_part(part, run, target, problems) for part in PARTS]
    html = _page(run, sections, problems)
    path = target / "index.html"
    path.write_text(html, encoding="utf-8")
    return path


def _part(part: Part, run: RunFolder, target: Path, problems: list[str]) -> str:
    """The section, or nothing if it is to be left out."""
    body = ""
    figure = _tried(part, part.draw, run, problems)
    if part.file:
        path = target / part.file
        if figure is None:
            path.unlink(missing_ok=True)  # an earlier report's picture would contradict this page
        else:
            body = _picture(figure, path, part.title)
    if part.draw is film and body:
        body = _viewer(run) + body
    grids = [grid for grid in _tried(part, part.tables, run, problems) or [] if grid is not None]
    for grid in grids:
        title = f"<h3>{escape(grid.title)}</h3>" if len(grids) > 1 else ""
        body += title + html_table(grid)
    if body:
        return _section(part.title, f"<p>{part.about}</p>{body}")
    if not part.absent or run.compares_only:
        return ""
    return _section(part.title, f'<p class="absent">Not run. {part.absent}</p>')


def _tried(
    part: Part, make: Callable[[RunFolder], Any], run: RunFolder, problems: list[str]
) -> Any:
    """What `make` makes; None if it cannot."""
    try:
        return make(run)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        # A column that another version names differently must not cost the other sections.
        problems.append(f"{part.title}: cannot be drawn: {type(error).__name__}: {error}")
        return None


def _picture(figure: Figure, path: Path, title: str) -> str:
    image = BytesIO()
    figure.savefig(image, format="png")
    path.write_bytes(image.getvalue())
    source = "data:image/png;base64," + base64.b64encode(image.getvalue()).decode("ascii")
    return f'<img src="{source}" alt="{escape(title)}">'


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
    results = _results(run)
    missing = '<p class="absent">Not run. <code>equipoise evaluate MODEL --folder RUN</code></p>'
    parts = [
        f"<header><h1>{name}</h1><p>{escape(_subtitle(run))}</p></header>",
        _cards(run),
        _problems(problems),
        "" if run.compares_only else _section("Results", results or missing),
        *sections,
        "" if run.compares_only else _recipe(run.recipe),
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


def _results(run: RunFolder) -> str | None:
    table = results_table(run)
    if table is None or "passes_forward" not in run.evaluation:  # of an older version
        return table
    return (
        table
        + f"<h3>Cost and symmetry</h3>{html_table(property_grid({'This run': run.evaluation}))}"
    )


def _subtitle(run: RunFolder) -> str:
    kind = "Equipoise, models compared" if run.compares_only else "Equipoise run"
    return " · ".join(part for part in (kind, run.data_name) if part)


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
