"""`equipoise evaluate` as a user types it: one model, several, and what can go wrong."""

import json
import re
from functools import partial
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from equipoise.backbones import EquiformerV2Config
from equipoise.cli import app, measure, overlap
from equipoise.cli.labelled import Labelled
from equipoise.cli.overlap import warn_of_overlap
from equipoise.data import rmd17
from equipoise.deq import Anderson
from equipoise.potentials import PotentialConfig, Statistics, build, save
from equipoise.report import style
from equipoise.report.tables import ERRORS
from equipoise.train import make_recipe, read_test


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, threads as they were, and less of what takes time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(measure, "examine", partial(measure.examine, structures=1))
    monkeypatch.setitem(style.RC, "savefig.dpi", 30)
    return tmp_path


def make_model(path: Path, *, seed: int, cutoff: float = 5.0, data: dict | None = None) -> str:
    """An untrained potential for ethanol, too small to be good at anything."""
    backbone = EquiformerV2Config(
        channels=8, lmax=1, mmax=1, heads=2, hidden=8, ffn=8, cutoff=cutoff
    )
    statistics = Statistics((1, 6, 8), (-13.0, -1030.0, -2040.0), 1.0, 8.0, 9.0)
    quick = Anderson(tolerance=1e-2, max_passes=8)
    config = PotentialConfig(backbone=backbone, solver=quick, adjoint=quick)
    extra = {} if data is None else {"recipe": {"data": data}}
    save(build(config, statistics, seed=seed), path, extra=extra)
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("models") / "first.safetensors", seed=0)


@pytest.fixture(scope="module")
def structures() -> list[ase.Atoms]:
    """Twelve labelled structures, alternately of two kinds."""
    found = [graph.to_ase()[0] for graph in rmd17("ethanol", cutoff=5.0).test[:12]]
    for index, atoms in enumerate(found):
        atoms.info["config_type"] = ("warm", "cold")[index % 2]
    return found


@pytest.fixture
def mine(here: Path, structures: list[ase.Atoms]) -> Path:
    ase.io.write(here / "mine.extxyz", structures)
    return here / "mine.extxyz"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments], terminal_width=200)
    assert result.exit_code == code, result.output
    return result


def message(*arguments: object) -> str:
    """What a failing command says, in one line."""
    said = run(*arguments, code=1).stderr
    assert "error: " in said.splitlines()[-1]
    return said


def words(text: str) -> str:
    return " ".join(text.split())


def test_two_models_on_the_same_structures(model: str, mine: Path) -> None:
    other = make_model(Path("other.safetensors"), seed=1, cutoff=4.0)  # edges of its own
    shown = run("evaluate", model, other, "--data", mine, "--folder", "compared").stdout
    assert "mean predictor" in shown and "Difference from" in words(shown)
    record = json.loads(Path("compared/comparison.json").read_text())
    assert list(record["models"]) == [model, other] and record["structures"] == 12
    for name in ("energy_mae_mev", "force_mae_mev"):
        values = [each[name] for each in record["models"].values()]
        difference = record["differences"][other][name]
        assert difference["value"] == pytest.approx(values[1] - values[0])
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert name in ERRORS
    assert Path("compared/comparison.png").is_file()
    page = Path(run("report", "compared").stdout.strip()).read_text()
    assert "Models compared" in page and "Not run. <code>equipoise evaluate" not in page[:9000]


def test_what_one_evaluation_leaves(model: str, mine: Path) -> None:
    result = run(
        "evaluate", model, "--data", mine, "--molecule-key", "config_type", "--folder", "there"
    )
    shown = words(result.stdout)
    for expected in ("Errors by molecule", "Errors by element", "Worst structures", "mirror"):
        assert expected in shown
    record = json.loads(Path("there/evaluation.json").read_text())
    assert {each["name"]: each["structures"] for each in record["molecules"]} == {
        "warm": 6,
        "cold": 6,
    }
    assert record["bootstrap"]["block"] == 1 and record["intervals"]["force_mae_mev"]
    assert record["examination"]["rotation"]["force_relative"] < 1e-3
    worst = ase.io.read("there/worst.extxyz", index=":")
    assert [atoms.info["index"] for atoms in worst] == [each["index"] for each in record["worst"]]
    assert Path("there/evaluation.png").is_file()


def test_notes_that_keep_from_wrong_conclusions(
    model: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structures = ase.io.read(mine, index=":")
    for atoms in structures:
        atoms.calc.results["energy"] += 50.0
    ase.io.write("shifted.extxyz", structures)
    assert (
        "all energies are off by about" in run("evaluate", model, "--data", "shifted.extxyz").stderr
    )
    trained = {"source": "file", "train": str(mine), "test": str(mine)}
    other = make_model(Path("mine.safetensors"), seed=0, data=trained)
    monkeypatch.setattr(overlap, "LARGEST_FILE", 0)
    assert "is what mine.safetensors learned from" in run("evaluate", other, "--limit", 2).stderr


def test_test_structures_that_were_learned_from(
    model: str, mine: Path, structures: list[ase.Atoms]
) -> None:
    """Whatever file they are in, and of every model."""
    ase.io.write("train.extxyz", [*structures[8:], *structures[:1]])
    trained = {"source": "file", "train": "train.extxyz", "validation_count": 1}
    other = make_model(Path("other.safetensors"), seed=1, data=trained)
    said = words(run("evaluate", model, other, "--data", mine).stderr)
    found = re.search(
        r"warning: (\d) of 12 test structures are in the training set of (\S+),", said
    )
    assert found and found[1] in "45" and found[2] == other and said.count("warning") == 1


def test_other_divisions_of_the_same_data_set(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [graph.to_ase()[0] for graph in rmd17("ethanol", cutoff=2.0).train[:40]]
    arrays = {
        "z": frames[0].numbers,
        "R": np.array([atoms.positions for atoms in frames]),
        "E": np.array([-97000.0 + index for index in range(40)]),
        "F": np.zeros((40, 9, 3)),
    }
    np.savez("md17_ethanol.npz", **arrays)
    same = {"source": "md17", "subset": "ethanol", "train_count": 20, "validation_count": 5}
    sections = [make_recipe({"data": same | {"folder": ".", "seed": seed}}).data for seed in (0, 1)]
    files = {
        f"seed{each.seed}": make_model(
            Path(f"{each.seed}.safetensors"), seed=0, data=each.model_dump(mode="json")
        )
        for each in sections
    }
    test = Labelled("md17:ethanol", lambda cutoff: [], {}, None, section=sections[0])
    graphs = read_test(sections[0], cutoff=2.0)
    warn_of_overlap(files, test, graphs)
    said = words(capsys.readouterr().err)
    assert said.count("warning:") == 1
    assert re.search(r"\d+ of 15 test structures are in the training set of seed1,", said)

    Path("md17_ethanol.npz").unlink()
    warn_of_overlap(files, test, graphs)
    said = words(capsys.readouterr().err)
    assert said.count("warning:") == 1
    assert "seed1 was trained on md17:ethanol with data.seed=1 and is measured on the test" in said
    assert "with data.seed=0: it may have learned from some of them" in said


def test_other_split_of_several_molecules(capsys: pytest.CaptureFixture[str], model: str) -> None:
    """That cannot be read again here, so the recipes are compared."""
    split2 = {
        "source": "rmd17",
        "subset": "aspirin,ethanol",
        "molecule": "aspirin,ethanol",
        "split": 2,
    }
    other = {"source": "rmd17", "subset": "uracil", "molecule": "uracil", "split": 2}
    official = make_recipe({"data": {"folder": "nowhere"}}).data
    test = Labelled("rmd17:ethanol", lambda cutoff: [], {}, None, section=official)
    files = {
        name: make_model(Path(f"{name}.safetensors"), seed=0, data=data)
        for name, data in (("several", split2), ("other", other))
    }
    warn_of_overlap(files | {"unknown": model}, test, [])
    said = words(capsys.readouterr().err)
    assert said.count("warning:") == 1
    assert "several was trained on rmd17:aspirin,ethanol with data.split=2" in said


def test_as_many_test_structures_as_the_recipe_says(here: Path, mine: Path) -> None:
    trained = {"source": "file", "train": "gone.extxyz", "test": str(mine), "test_count": 5}
    model = make_model(Path("five.safetensors"), seed=0, data=trained)
    more = ("--folder", "there", "--molecule-key", "config_type")
    assert "5 structures" in run("evaluate", model, *more).stderr
    assert json.loads(Path("there/evaluation.json").read_text())["structures"] == 5
    assert "3 structures" in run("evaluate", model, "--limit", 3).stderr
    assert "12 structures" in run("evaluate", model, "--data", mine).stderr
    trained["test_count"] = 13
    model = make_model(Path("more.safetensors"), seed=0, data=trained)
    assert "test_count must be at most the 12 test structures" in message("evaluate", model)


def test_models_of_recipes_that_are_refused_today_are_measured(here: Path, mine: Path) -> None:
    trained = {"source": "file", "train": "gone.extxyz", "split": 3, "test": str(mine)}
    model = make_model(Path("older.safetensors"), seed=0, data=trained)
    assert "12 structures" in run("evaluate", model).stderr


def test_interrupted(model: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, observe, **settings: object) -> None:
        observe(4)
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "evaluate_potential", stopped)
    said = run("evaluate", model, "--data", mine, "--folder", "there", code=130).stderr
    assert "stopped after 4 of 12 structures, nothing is written" in said
    assert not list(Path("there").iterdir())


def test_out_of_memory(model: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: object, **settings: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(measure, "evaluate_potential", too_large)
    assert "with batches of 16; give a smaller --batch-size" in message(
        "evaluate", model, "--data", mine
    )


def test_mistakes_cost_no_time(model: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def predicted(*arguments: object, **settings: object) -> None:
        raise AssertionError("this should have been refused before")

    monkeypatch.setattr(measure, "evaluate_potential", predicted)
    assert "given once, received" in message("evaluate", model, model, "--data", mine)
    Path("file").touch()
    assert "results must go to a folder" in message(
        "evaluate", model, "--data", mine, "--folder", "file"
    )
    said = message("evaluate", model, "--data", mine, "--molecule-key", "config")
    assert "structure 0 of" in said and "it has config_type" in said
    said = message("evaluate", model, "--data", "rmd17:ethanol", "--molecule-key", "config_type")
    assert "is for files that ASE reads" in said
    assert "did you mean 'rmd17'" in message("evaluate", model, "--data", "rmd71:ethanol")
    assert "is for published data sets" in message(
        "evaluate", model, "--data", mine, "--data-folder", "x"
    )
    if not torch.cuda.is_available():
        assert "no CUDA device" in message("evaluate", model, "--data", mine, "--device", "cuda")
