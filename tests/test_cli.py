"""The commands: that they do what they say, and that errors are one line a user can act on."""

import json
import re
import shutil
from pathlib import Path

import ase.io
import pytest
import torch
from ase.build import bulk, molecule
from typer.testing import CliRunner, Result

from equipoise.backbones.equiformer_v2 import EquiformerV2Config
from equipoise.cli import app, learn, move, quickstart
from equipoise.data import rmd17
from equipoise.potentials import PotentialConfig, Statistics, build, save
from equipoise.train import datasets, recipe_names

COMMANDS = ("train", "evaluate", "md", "relax", "info", "report", "quickstart")
NARROW = [
    "potential.backbone.channels=8",
    "potential.backbone.hidden=8",
    "potential.backbone.ffn=8",
]
SHORT = ["training.epochs=1", "training.batch_size=2", *NARROW]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def message(*arguments: object) -> str:
    """What a failing command says; it must fail in one line, without a traceback."""
    result = run(*arguments, code=1)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own; and threads as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return tmp_path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained potential for ethanol, too small to be good at anything."""
    config = PotentialConfig(
        backbone=EquiformerV2Config(channels=8, lmax=1, mmax=1, heads=2, hidden=8, ffn=8)
    )
    statistics = Statistics(
        elements=(1, 6, 8),
        reference_energies=(-13.0, -1030.0, -2040.0),
        force_rms=1.0,
        mean_neighbours=8.0,
        mean_atoms=9.0,
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(build(config, statistics, seed=0), path)
    return path


@pytest.fixture
def mine(here: Path) -> Path:
    """Twelve labelled structures in a file."""
    structures = [graph.to_ase()[0] for graph in rmd17("ethanol", cutoff=5.0).test[:12]]
    ase.io.write(here / "mine.extxyz", structures)
    return here / "mine.extxyz"


@pytest.fixture
def water(here: Path) -> Path:
    ase.io.write(here / "water.xyz", molecule("H2O"))
    return here / "water.xyz"


@pytest.fixture
def settings(mine: Path) -> list[str]:
    """The changes that make a recipe train on `mine` in a moment."""
    return [
        "data.source=file",
        f"data.train={mine}",
        f"data.test={mine}",
        "data.validation_count=4",
        *SHORT,
    ]


def test_help() -> None:
    text = run("--help").output
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text)
        assert "Usage" in run(command, "--help").output


def test_version() -> None:
    assert re.fullmatch(r"equipoise (\d+\.\d+\.\d+|\(not installed.*\))\n", run("--version").output)


SMALL_ORIGINAL = [
    f"potential.backbone.{key}={value}"
    for key, value in {
        "channels": 8,
        "lmax": 1,
        "mmax": 1,
        "heads": 2,
        "hidden": 4,
        "alpha_channels": 4,
        "value_channels": 2,
        "ffn": 8,
        "edge_channels": 8,
        "grid": 6,
        "gaussians": 32,
    }.items()
]


@pytest.mark.slow  # the library's side of it is in tests/train/test_research_recipes.py
def test_a_recipe_after_the_research_code(settings: list[str], mine: Path) -> None:
    changes = [change for change in settings if change not in NARROW]
    recipe = ["deq-equiformer-v2-halftiny", *changes, *SMALL_ORIGINAL]
    run("train", *recipe, "--folder", "run")
    assert "equiformer_v2_original" in run("info", "run").stdout
    assert "mean predictor" in run("evaluate", "run", "--data", mine).stdout
    run("md", "run", mine, "--steps", 2, "--cold-sample", 0)
    published = ["potential.forces=direct", "potential.backbone.force_head=true"]
    published += ["potential.gradient.name=phantom", "training.batch_size=1"]
    published += ["potential.injection.norm=batch_global_prev"]
    run("train", *recipe, *published, "--folder", "published")
    refused = run("evaluate", "published", "--data", mine, code=1)
    assert "one structure at a time, received 12" in refused.stderr
    text = run("evaluate", "published", "--data", mine, "--batch-size", 1).stdout
    assert "mean predictor" in text
    assert "direct forces" in message("md", "published", mine, "--steps", 2)


def test_train_evaluate_md_relax_report(settings: list[str], mine: Path) -> None:
    run("train", "quickstart", *settings, "--folder", "run")
    folder = Path("run")
    assert (folder / "model.safetensors").is_file()

    table = run("evaluate", folder).stdout
    assert "mean predictor" in table
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert (evaluation["structures"], evaluation["data"]) == (12, str(mine))

    text = run("md", folder, mine, "--steps", 5, "--cold-sample", 2, "--every", 1).stdout
    assert "0.0025 ps of C2H6O, 5 steps" in " ".join(text.split())
    assert len(ase.io.read(folder / "md" / "trajectory.extxyz", index=":")) == 6
    run("md", folder, mine, "--duration", "4fs", "--cold-sample", 0, "--every", 1)  # prolong
    assert json.loads((folder / "md" / "summary.json").read_text())["steps"] == 8

    assert "converged" in run("relax", folder, mine, "--fmax", 1000).stdout
    assert (folder / "relax" / "relaxed.extxyz").is_file()

    page = Path(run("report", folder).stdout.strip())
    assert "Not run" not in page.read_text()


def test_train_again_goes_on(settings: list[str]) -> None:
    run("train", "quickstart", *settings, "--folder", "run")
    assert "finished already" in run("train", "run").stderr
    other = [*settings, "training.epochs=2"]
    text = message("train", "quickstart", *other, "--folder", "run")
    assert "training.epochs: 1 there, 2 here" in text
    assert "--fresh" in text and "resume=False" not in text
    assert "finished already" not in run("train", "run", "training.epochs=2", "--fresh").stderr


def test_interrupted_training(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    class Interrupted:
        finished = False

    monkeypatch.setattr(learn, "fit", lambda *arguments, **settings: Interrupted())
    run("train", "quickstart", *settings, code=130)


def test_interrupted_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt("stopped by SIGINT after step 3 of 8")

    monkeypatch.setattr(move, "run_md", interrupted)
    assert "after step 3 of 8" in run("md", model, code=130).stderr


def test_keys() -> None:
    text = run("train", "--keys").stdout
    assert "training.learning_rate" in text
    assert "data.source" in text


def test_evaluate_on_ethanol(model: Path) -> None:
    result = run("evaluate", model, "--data", "rmd17:ethanol", "--limit", 3)
    assert "MACE (published" in result.stdout
    assert not Path("runs").exists(), "nothing is written unless asked for"
    run("evaluate", model, "--data", "rmd17:ethanol", "--limit", 2, "--folder", "there")
    assert Path("there/evaluation.npz").is_file()
    assert "Errors on rmd17:ethanol" in " ".join(result.stdout.split())


def test_evaluate_reads_labels_as_in_training(settings: list[str], here: Path) -> None:
    """Energies of two methods in one file; the model learned from those under dft_energy."""
    structures = [graph.to_ase()[0] for graph in rmd17("ethanol", cutoff=5.0).test[:12]]
    for atoms in structures:
        atoms.info |= {"dft_energy": atoms.get_potential_energy(), "REF_energy": 7.0}
        atoms.arrays["dft_forces"] = atoms.get_forces()
        atoms.calc = None
    ase.io.write("two.extxyz", structures)
    keys = ["data.energy_key=dft_energy", "data.forces_key=dft_forces"]
    files = ["data.train=two.extxyz", "data.test=two.extxyz"]
    said = run("train", "quickstart", *settings, *files, *keys, "--folder", "run").stderr
    assert "energy from 'dft_energy', forces from 'dft_forces'" in said

    said = run("evaluate", "run", "--data", "two.extxyz").stderr
    assert "energy from 'dft_energy'; forces from 'dft_forces'" in said
    assert not Path("run/evaluation.json").exists(), "kept for the run's own test set"
    said = run("evaluate", "run", "--data", "two.extxyz", "--energy-key", "REF_energy").stderr
    assert "energy from 'REF_energy'; forces from 'dft_forces'" in said
    Path("two.extxyz").rename("test.extxyz")  # the training file is not needed to evaluate
    run("evaluate", "run", "--data", "test.extxyz", "--folder", "run")
    assert json.loads(Path("run/evaluation.json").read_text())["data"] == "test.extxyz"

    ase.io.write("bare.extxyz", molecule("CH3CH2OH"))
    text = message("evaluate", "run", "--data", "bare.extxyz", "--energy-key", "E")
    assert "has the energy key 'E'" in text


def test_messages_name_options_that_exist(model: Path, here: Path) -> None:
    ase.io.write("bare.extxyz", [molecule("CH3CH2OH")] * 60)
    text = message("evaluate", model, "--data", "bare.extxyz")
    assert "Give --energy-key and --forces-key" in text
    text = message("train", "quickstart", "data.source=file", "data.train=bare.extxyz")
    assert "Give data.energy_key and data.forces_key" in text
    text = message("evaluate", model, "--data", "rmd17:ethanol", "--energy-key", "E")
    assert "fixed names, received --energy-key E" in text


def test_evaluate_on_the_split_of_the_training(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def official(molecule: str, split: int, **settings: object) -> object:
        asked.append((molecule, split, settings["folder"]))
        raise ValueError("that is all")

    config = PotentialConfig(
        backbone=EquiformerV2Config(channels=8, lmax=1, mmax=1, heads=2, hidden=8, ffn=8)
    )
    potential = build(config, Statistics((1, 6, 8), (0.0, 0.0, 0.0), 1.0, 8.0, 9.0), seed=0)
    data = {"source": "rmd17", "molecule": "aspirin", "split": 3, "folder": "official"}
    save(potential, "m.safetensors", extra={"recipe": {"data": data}})
    monkeypatch.setattr(datasets, "rmd17", official)
    for more in (
        [],
        ["--data", "rmd17:aspirin"],
        ["--data", "rmd17:aspirin", "--data-folder", "here"],
        ["--data", "rmd17:uracil"],
    ):
        message("evaluate", "m.safetensors", *more)
    aspirin = ("aspirin", 3, "official")
    assert asked == [aspirin, aspirin, ("aspirin", 3, "here"), ("uracil", 1, None)]


def test_md_starts_from_ethanol_by_itself(model: Path) -> None:
    text = " ".join(run("md", model, "--steps", 2, "--ensemble", "langevin").stdout.split())
    assert "C2H6O" in text
    assert "energy drift" not in text
    assert Path("runs/tiny-md/md/log.csv").is_file()


def test_relax_that_does_not_converge(model: Path, water: Path) -> None:
    arguments = ("relax", model, water, "--steps", 0, "--fmax", 1e-6, "--optimiser", "BFGS")
    assert "not converged" in run(*arguments, code=1).stdout


def test_zoo() -> None:
    assert "rmd17-ethanol" in run("zoo", "list").stdout
    text = run("zoo", "card", "ethanol").stdout
    assert text.startswith("## rmd17-ethanol")
    assert "Limits:" in text
    assert "did you mean 'ethanol'" in message("zoo", "card", "etanol")


def test_info(model: Path, settings: list[str]) -> None:
    text = " ".join(run("info", model).stdout.split())
    assert "elements H C O" in text
    assert "equilibrium" in text
    run("train", "quickstart", *settings, "--folder", "run")
    assert "validation" in run("info", "run").stdout
    run("info")


def test_quickstart(monkeypatch: pytest.MonkeyPatch, settings: list[str]) -> None:
    """The four acts, with fewer structures and steps; and once more, which is quick."""
    small = quickstart.load_recipe
    monkeypatch.setattr(
        quickstart,
        "load_recipe",
        lambda name, changes: small(name, [*changes, *settings, "training.max_seconds=null"]),
    )
    few = rmd17("ethanol", cutoff=5.0).test[:4]
    monkeypatch.setattr(quickstart, "rmd17", lambda name, cutoff: type("Few", (), {"test": few})())
    monkeypatch.setattr(quickstart, "PROBE_STEPS", 2)
    monkeypatch.setattr(quickstart, "FEWEST_STEPS", 4)
    monkeypatch.setattr(quickstart, "MOST_STEPS", 4)
    first = run("quickstart")
    page = Path("runs/quickstart/report/index.html")
    assert f"file://{page.resolve()}" in first.stderr
    text = page.read_text()
    assert "Not run" not in text and "could not be shown" not in text
    log = Path("runs/quickstart/md/log.csv").read_text()
    assert "finished already" in run("quickstart").stderr
    assert Path("runs/quickstart/md/log.csv").read_text() == log
    run("quickstart", "--fresh")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], f"train needs a recipe: {', '.join(recipe_names())}"),
        (["train", "quikstart"], "did you mean 'quickstart'?"),
        (["train", "quickstart", "training.epoch=3"], "did you mean 'epochs'?"),
        (["train", "quickstart", "potential.backbone.chanels=3"], "did you mean 'channels'?"),
        (["train", "quickstart", "training.epochs"], "must be written key=value"),
        (["train", "nowhere.yaml"], "does not exist"),
        (["train", "EMPTY"], "is a folder without recipe.yaml"),
        (
            ["evaluate", "MODEL", "--data", "BROKEN", "--data-folder", "x"],
            "is for published data sets",
        ),
        (["evaluate", "MODEL", "--data", "nowhere.xyz"], "nowhere.xyz"),
        (["evaluate", "MODEL", "--data", "rmd17:etanol"], "did you mean 'ethanol'?"),
        (["evaluate", "MODEL"], "does not say what it was trained on"),
        (["evaluate", "EMPTY"], "holds no model.safetensors"),
        (["md", "nowhere"], "no model of that name"),
        (["md", "MODEL", "nowhere.xyz"], "there is no structure file 'nowhere.xyz'"),
        (["md", "MODEL", "BROKEN"], "ASE cannot read a structure"),
        (["md", "MODEL", "SILICON"], "knows the elements H, C, O, received Si"),
        (["md", "MODEL", "--steps", "3", "--duration", "2ps"], "not both"),
        (["md", "MODEL", "--timestep", "-1", "--steps", "3"], "larger than 0"),
        (["md", "MODEL", "--timestep", "0"], "larger than 0"),
        (["md", "MODEL", "--duration", "-2ps"], "a number with its unit, such as 500fs"),
        (["md", "MODEL", "--duration", "2"], "with its unit"),
        (["relax", "MODEL", "--fmax", "0"], "fmax must be finite and larger than 0"),
        (["relax", "MODEL", "--cell"], "periodic in three directions"),
        (["info", "BROKEN"], "not a readable safetensors file"),
        (["report", "nowhere"], "a report needs a run folder"),
        (["report", "EMPTY"], "not the folder of an Equipoise run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors(arguments: list[str], expected: str, model: Path, here: Path) -> None:
    places = {"MODEL": model, "EMPTY": here / "empty", "BROKEN": here / "broken.xyz"}
    places["SILICON"] = here / "silicon.xyz"
    places["EMPTY"].mkdir()
    places["BROKEN"].write_text("3\nnothing here\nH 0 0\n")
    ase.io.write(places["SILICON"], bulk("Si", cubic=True), format="extxyz")
    assert expected in message(*(places.get(each, each) for each in arguments))


def test_debug_shows_the_traceback(here: Path) -> None:
    result = CliRunner().invoke(app, ["--debug", "report", "nowhere"])
    assert isinstance(result.exception, FileNotFoundError)


def test_unknown_option_is_a_usage_error() -> None:
    assert "No such option" in run("md", "--colour", code=2).stderr


def test_report_of_a_copied_run(model: Path, water: Path) -> None:
    """A run folder may be moved: nothing in it knows where it was."""
    run("md", model, water, "--steps", 4, "--folder", "run-here")
    before = Path(run("report", "run-here").stdout.strip()).read_text()
    shutil.move("run-here", "run-there")
    after = Path(run("report", "run-there").stdout.strip()).read_text()
    assert before.replace("run-here", "run-there") == after


@pytest.mark.parametrize(
    "command", [["evaluate"], ["md"], ["relax"], ["data", "label", "absent.xyz"]], ids=" ".join
)
def test_only_training_is_shared_among_processes(command, monkeypatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = message(*command)
    assert "must be one process, received 2 of torchrun" in text
