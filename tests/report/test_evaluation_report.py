"""What an evaluation leaves behind is shown as it is: tables, pictures, comparisons; old files too."""

import json
import re
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from equipoise.graph import Graph
from equipoise.report import read_run, style, write_report
from equipoise.report.evaluation_plots import parity_plots
from equipoise.report.run_folder import read_parity
from equipoise.report.tables import (
    difference_grid,
    element_grid,
    molecule_grid,
    property_grid,
    with_interval,
    worst_grid,
)
from equipoise.train import compare, evaluate, examine, write_comparison
from tests.report.synthetic_run import make_run, worst
from tests.train.constant import Constant


@pytest.fixture
def graphs() -> list[Graph]:
    random = np.random.default_rng(0)

    def pair(first: int) -> Graph:
        forces = random.normal(size=(2, 3))
        positions = random.normal(size=(2, 3))
        energy = float(random.normal())
        return Graph.build(positions, [first, 1], cutoff=5.0, energy=energy, forces=forces)

    return [pair(element) for element in [1] * 12 + [8] * 15]


def text_of(page: Path) -> str:
    return " ".join(
        re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page.read_text(), flags=re.S).split()
    )


def test_from_evaluation_to_page(graphs: list[Graph], tmp_path: Path, rendered: None) -> None:
    potential = Constant()
    examination = examine(potential, graphs, structures=2)
    evaluate(potential, graphs).save(
        tmp_path, model="constant", data="pairs.xyz", examination=examination
    )
    page = text_of(write_report(tmp_path))
    assert "could not be shown" not in page
    for expected in (
        "27 structures of pairs.xyz",
        "Errors by element element atoms force MAE (meV/Å) force RMSE (meV/Å) H 39 500 500 O 15",
        "Errors by molecule molecule structures",
        "passes, forward + adjoint 4.0 + 2.0",
        "structures not converged 15",
        "contraction 0.50 (largest 0.50)",
        ", not converged",
    ):
        assert expected in page, expected
    assert (tmp_path / "report" / "parity.png").is_file()
    assert not (tmp_path / "report" / "solving.png").exists()


def test_evaluation_of_an_older_version(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3, steps=20)
    shutil.rmtree(run / "md")
    (run / "evaluation.json").write_text(
        json.dumps({"energy_mae_mev": 16.0, "force_mae_mev": 50.0, "structures": 1000})
    )
    with np.load(run / "evaluation.npz", allow_pickle=False) as arrays:
        old = {name: arrays[name] for name in arrays if name not in ("atoms", "energy_mean")}
    np.savez(run / "evaluation.npz", **old)
    page = text_of(write_report(run))
    assert "could not be shown" not in page and "Worst structures" not in page
    with mpl.rc_context(style.RC):
        title = parity_plots(read_parity(run / "evaluation.npz")).axes[0].get_title(loc="left")
    assert title.startswith("Energy\nMAE") and title.endswith("meV")


def test_models_compared(graphs: list[Graph], tmp_path: Path, rendered: None) -> None:
    found = {name: evaluate(Constant(), graphs) for name in ("a", "<b>")}
    record = compare(found).as_dict({n: e.as_dict() for n, e in found.items()}, data="pairs.xyz")
    write_comparison(tmp_path, record)
    html = write_report(tmp_path).read_text()
    assert "<b>" not in html.replace('<div class="card"><b>', "")
    page = text_of(tmp_path / "report" / "index.html")
    assert "Errors on pairs.xyz, 27 structures" in page
    assert "Difference from a, structure by structure" in page
    assert "≈ +0.00 [+0.00, +0.00]" in page
    assert "Not run" not in page
    assert (tmp_path / "report" / "comparison.png").is_file()


def test_a_record_with_other_keys_costs_its_table_only(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3, steps=20)
    shutil.rmtree(run / "md")
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"elements": [{"symbol": "H"}]}))
    page = text_of(write_report(run))
    assert "Where the errors are: cannot be drawn: KeyError" in page
    assert "on atom 17 C2H6O" in page


def test_tables_leave_out_what_is_not_known() -> None:
    assert element_grid({}) is None and worst_grid({}) is None
    assert molecule_grid({"molecules": [{"name": "H2", "structures": 3}]}) is None
    grid = worst_grid({"worst": [worst(3, force_worst_atom=None, converged=False)]})
    assert grid.rows[0][-1] == "–, not converged"
    explicit = {"passes_forward": 0.0, "passes_adjoint": 0.0, "unconverged": 0}
    assert [row[0] for row in property_grid({"explicit": explicit}).rows] == [
        "structures not converged"
    ]


def test_molecules_are_ranked_and_not_endless() -> None:
    molecules = [
        {"name": f"m{index}", "structures": 1, "force_mae_mev": float(index), "unconverged": 0}
        for index in range(50)
    ]
    grid = molecule_grid({"molecules": molecules})
    assert [row[0] for row in grid.rows[:2]] == ["m49", "m48"]
    assert len(grid.rows) == 20 and grid.note.startswith("30 more")
    assert "not converged" not in grid.headings
    molecules[49]["unconverged"] = 1
    assert molecule_grid({"molecules": molecules}).rows[0][-1] == "1"


def test_cells() -> None:
    record = {"force_mae_mev": 6.491, "intervals": {"force_mae_mev": [6.2, 6.8]}}
    assert with_interval(record, "force_mae_mev") == "6.49 [6.20, 6.80]"
    assert with_interval({"energy_mae_mev": None}, "energy_mae_mev") == "–"
    change = {"value": -120.4, "low": -130.0, "high": -2.0, "certain": True}
    comparison = {"reference": "a", "differences": {"b": {"force_mae_mev": change}}}
    assert difference_grid(comparison).rows == (("b", "-120 [-130, -2.00]"),)


def test_comparison_without_other_files_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    assert read_run(tmp_path).comparison == {}
    assert "Models compared" not in text_of(write_report(tmp_path))
