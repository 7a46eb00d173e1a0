"""A report is complete for a complete run, and says what is missing for every incomplete one."""

import json
import re
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from equipoise.data.sources.rmd17 import MOLECULES
from equipoise.report import molecule as film
from equipoise.report import read_run, style, write_report
from equipoise.report.evaluation_plots import parity_plots
from equipoise.report.plots import drift, learning_curve
from equipoise.report.published import published_for
from equipoise.report.run_folder import read_table, title_of
from equipoise.report.summary import cards, results_table
from tests.report.synthetic_run import make_run

PICTURES = ("learning_curve", "solving", "parity", "energy", "passes", "molecule")
OPTIONAL = ("solving",)  # without it, the page says nothing of it
# What a run lacks -> the pictures that cannot be drawn without it.
MISSING = {
    "recipe.yaml": (),
    "log.csv": ("learning_curve", "solving"),
    "evaluation.json": (),
    "evaluation.npz": ("parity",),
    "md/log.csv": ("energy", "passes"),
    "md/summary.json": (),
    "md/cold_passes.csv": (),
    "md/trajectory.extxyz": ("molecule",),
}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "complete", epochs=8, steps=120)


@pytest.fixture
def run(complete: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / "run"))


def test_complete_run(run: Path, rendered: None) -> None:
    before = dict(mpl.rcParams)
    page = write_report(run).read_text()
    assert {path.stem for path in (run / "report").glob("*.png")} == set(PICTURES)
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert "playMolecule" in page
    assert "Not run" not in page
    assert "could not be shown" not in page
    assert dict(mpl.rcParams) == before, "a report must not restyle the user's own plots"


def test_page_stands_alone(run: Path) -> None:
    page = write_report(run).read_text()
    # Nothing is fetched when the page is viewed: every source is inside it.
    assert set(re.findall(r'\bsrc="(data:image/png|[^"]{0,40})', page)) == {"data:image/png"}
    assert not re.search(r"<link|@import|url\(|fetch\(|XMLHttpRequest|https?://", page)


def test_report_may_be_repeated(run: Path) -> None:
    (run / "evaluation.npz").unlink()  # fewer pictures: the test is about the rest of the page
    (run / "md" / "trajectory.extxyz").unlink()
    first = write_report(run).read_text()
    assert write_report(run).read_text() == first


@pytest.mark.parametrize("name", MISSING)
def test_missing_file(run: Path, name: str) -> None:
    absent = MISSING[name]
    for (
        picture
    ) in absent:  # of an earlier report: it must not stay beside a page that says "not run"
        (run / "report").mkdir(exist_ok=True)
        (run / "report" / f"{picture}.png").touch()
    (run / name).unlink()
    page = write_report(run).read_text()
    drawn = {path.stem for path in (run / "report").glob("*.png")}
    assert drawn == set(PICTURES) - set(absent)
    said = len(set(absent) - set(OPTIONAL)) + (name in ("recipe.yaml", "evaluation.json"))
    assert page.count("Not run") == said


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe nonsense", b"a,b\n1"])
def test_damaged_files(run: Path, content: bytes) -> None:
    for name in MISSING:
        (run / name).write_bytes(content)
    read = read_run(run)
    assert {problem.split(" ")[0] for problem in read.problems} >= {
        "evaluation.json",
        "evaluation.npz",
        "md/summary.json",
        "md/trajectory.extxyz",
    }
    page = write_report(run).read_text()
    assert "Files that could not be shown" in page
    assert "data:image/png" not in page


def test_renamed_column_is_reported(run: Path) -> None:
    path = run / "md" / "log.csv"
    path.write_text(path.read_text().replace("potential_ev", "e_pot", 1))
    page = write_report(run).read_text()
    assert "Energy along the trajectory: cannot be drawn: KeyError" in page
    assert (run / "report" / "passes.png").exists()


def test_truncated_files_are_read_as_far_as_they_go(run: Path) -> None:
    for name in ("log.csv", "md/log.csv", "md/trajectory.extxyz"):
        path = run / name
        path.write_text(path.read_text()[:-25])
    read = read_run(run)
    assert read.problems == ()
    assert len(read.log["epoch"]) == 7
    assert len(read.md_log["step"]) == 120
    assert len(read.frames) == 12


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a report needs a run folder, and '.*nowhere'"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="it is not the folder of an Equipoise run"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_names_are_escaped(complete: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(complete, tmp_path / "<i>&run"))
    assert "<i>" not in write_report(run).read_text()


def test_results_beside_published(run: Path) -> None:
    table = results_table(read_run(run))
    assert re.findall(r"<td>(MACE|Allegro|NequIP|Mean predictor|This run)</td>", table) == [
        "Mean predictor",
        "This run",
        "MACE",
        "Allegro",
        "NequIP",
    ]
    assert "<td>0.4</td><td>2.8</td>" in table


def test_published_levels_belong_to_their_data(run: Path) -> None:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": "my_water.xyz"}))
    assert "MACE" not in results_table(read_run(run))
    assert all(len(published_for(f"rmd17:{name}")) == 3 for name in MOLECULES)
    others = ("md17:aspirin", "my_rmd17_ethanol.xyz", "rmd17:ethanol-dimer", None)
    assert not any(published_for(name) for name in others)


@pytest.mark.parametrize(
    ("section", "title"),
    [
        ({}, "rmd17:ethanol"),
        ({"source": "rmd17", "molecule": "uracil", "subset": None}, "rmd17:uracil"),
        ({"source": "md22", "molecule": "ethanol", "subset": "DHA"}, "md22:DHA"),
        ({"source": "qm9", "molecule": "ethanol", "subset": None}, "qm9"),
        ({"source": "file", "train": "water.xyz", "molecule": "ethanol"}, "water.xyz"),
    ],
)
def test_what_a_recipe_learns_from(section: dict[str, str | None], title: str) -> None:
    assert title_of(section) == title


def test_parity_with_missing_labels(run: Path) -> None:
    with np.load(run / "evaluation.npz", allow_pickle=False) as arrays:
        pairs = dict(arrays)
    pairs["energy_true"][::2] = np.nan
    pairs["forces_pred"][:] = np.nan
    np.savez(run / "evaluation.npz", **pairs)
    with mpl.rc_context(style.RC):
        titles = [axes.get_title(loc="left") for axes in parity_plots(read_run(run).parity).axes]
    assert titles[0].startswith("Energy per atom\nMAE")
    assert titles[1] == "Forces   no label with a finite prediction"


def test_numbers_that_are_not_finite(run: Path) -> None:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"force_mae_mev": float("nan")}))
    read = read_run(run)
    assert "nan" not in results_table(read)
    assert not any("nan" in value for value, _ in cards(read))


def test_first_epoch_is_visible() -> None:
    log = {
        "epoch": np.array([0.0]),
        "valid_force_mae_mev": np.array([300.0]),
        "valid_energy_mae_mev": np.array([np.nan]),
    }
    with mpl.rc_context(style.RC):
        force, energy = learning_curve(log).axes
    assert force.get_lines()[0].get_marker() == "o"
    assert energy.get_title(loc="left") == "no validation yet"
    with pytest.raises(ValueError, match="holds no finished epoch"):
        learning_curve({"epoch": np.array([0.0])})


def test_drift_is_the_slope_of_the_conserved_energy() -> None:
    time = np.arange(50) * 20.0  # fs
    log = {"time_fs": time, "conserved_ev": -3.0 + 2e-3 * time / 1000}
    assert drift(log).slope == pytest.approx(2.0)  # meV/ps
    assert drift({name: column[:2] for name, column in log.items()}) is None
    assert drift(log | {"conserved_ev": np.full(50, np.nan)}) is None  # Langevin


def test_empty_cells_are_nan(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,\n2,3\n4")
    table = read_table(path)
    np.testing.assert_array_equal(table["a"], [1, 2])
    np.testing.assert_array_equal(table["b"], [np.nan, 3])


def test_frames_for_the_viewer() -> None:
    first = molecule("CH3CH2OH")
    first.info["time_fs"] = 0.0
    frames = [first]
    for index in range(1, 1000):
        frame = first.copy()
        frame.positions += 0.001 * index
        frame.info["time_fs"] = 0.5 * index
        frames.append(frame)
    record = film.viewer_frames(frames)
    assert len(record["positions"]) == film.MOST_FRAMES == len(record["labels"])
    assert (record["labels"][0], record["labels"][-1]) == ("0 fs", "500 fs")
    assert len(record["positions"][0]) == 3 * len(first)
    assert record["cell"] is None
    shown = np.reshape(record["positions"][-1], (-1, 3))
    wanted = frames[-1].positions - first.positions.mean(axis=0)
    np.testing.assert_allclose(shown, wanted, atol=1e-3)


def test_frames_the_viewer_cannot_play() -> None:
    water, ethanol = molecule("H2O"), molecule("CH3CH2OH")
    assert film.viewer_frames([water]) is None
    assert film.viewer_frames([water, ethanol]) is None
    assert film.viewer_frames([bulk("Cu", cubic=True) * 5] * 2) is None
    assert film.viewer_frames([Atoms(), Atoms()]) is None


def test_periodic_cell_is_drawn() -> None:
    record = film.viewer_frames([bulk("Si", cubic=True)] * 2)
    np.testing.assert_allclose(record["cell"], np.eye(3) * 5.43)


@pytest.mark.parametrize(
    "atoms", [Atoms("He"), molecule("H2"), molecule("H2O"), bulk("Si", cubic=True)]
)
def test_filmstrip_of_few_atoms(atoms: Atoms) -> None:
    assert len(film.filmstrip([atoms]).axes) == 1


def test_one_atom_run(run: Path) -> None:
    write(run / "md" / "trajectory.extxyz", [Atoms("Ar")] * 3)
    assert "could not be shown" not in write_report(run).read_text()
