"""`equipoise evaluate` as a user types it: one model, several, and what can go wrong."""

import json
from functools import partial
from pathlib import Path

import ase
import ase.io
import pytest
import torch
from typer.testing import CliRunner, Result

from equipoise.backbones import EquiformerV2Config
from equipoise.cli import app, measure
from equipoise.cli.labelled import Labelled, warn_of_other_splits
from equipoise.data import rmd17
from equipoise.deq import Anderson
from equipoise.potentials import PotentialConfig, Statistics, build, save
from equipoise.report import style
from equipoise.report.tables import ERRORS


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


def test_notes_that_keep_from_wrong_conclusions(model: str, mine: Path) -> None:
    structures = ase.io.read(mine, index=":")
    for atoms in structures:
        atoms.calc.results["energy"] += 50.0
    ase.io.write("shifted.extxyz", structures)
    assert (
        "all energies are off by about" in run("evaluate", model, "--data", "shifted.extxyz").stderr
    )
    trained = {"source": "file", "train": str(mine), "test": str(mine)}
    other = make_model(Path("mine.safetensors"), seed=0, data=trained)
    assert "is what mine.safetensors learned from" in run("evaluate", other, "--limit", 2).stderr


def test_other_split(capsys: pytest.CaptureFixture[str], model: str) -> None:
    official = Labelled("rmd17:ethanol", lambda cutoff: [], {}, None, split=1)
    sections = {
        split: {"source": "rmd17", "molecule": "ethanol", "split": split} for split in (1, 2)
    }
    files = {
        f"split{split}": make_model(Path(f"{split}.safetensors"), seed=0, data=data)
        for split, data in sections.items()
    }
    warn_of_other_splits(files | {"unknown": model}, official)
    said = capsys.readouterr().err
    assert said.count("note:") == 1
    assert "split2 was trained on split 2 and is measured on the test structures of split 1" in said


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
