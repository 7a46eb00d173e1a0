"""The commands that move atoms: bounds that can be raised, and nothing left of what was refused."""

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.potentials import save
from tests.engines.fakes import tiny_potential


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.stderr.split())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    save(tiny_potential(tolerance=1e-4), tmp_path / "tiny.safetensors")
    ase.io.write("silicon.extxyz", ase.build.bulk("Si", cubic=True))
    ase.io.write("ethanol.xyz", ase.build.molecule("CH3CH2OH"))
    far = ase.build.molecule("H2")
    far.positions[0, 2] += 9
    ase.io.write("far.xyz", far)


@pytest.mark.parametrize("command", ["md", "relax"])
@pytest.mark.parametrize(
    ("model", "structure"),
    [
        ("tiny.safetensors", "nowhere.xyz"),
        ("tiny.safetensors", "silicon.extxyz"),
        ("nowhere.safetensors", "ethanol.xyz"),
    ],
)
def test_what_is_refused_leaves_no_folder(command, model, structure):
    before = set(Path().iterdir())
    run(command, model, structure, code=1)
    assert set(Path().iterdir()) == before


def test_the_gap_that_is_complained_of_can_be_raised():
    options = (
        "md",
        "tiny.safetensors",
        "far.xyz",
        "--steps",
        2,
        "--cold-sample",
        0,
        "--folder",
        "mine",
    )
    assert "--max-gap" in run(*options, code=1)
    assert not Path("mine").exists()
    run(*options, "--max-gap", 9.9)
    run(*options, "--max-gap", "inf", "--fresh")


def test_the_temperature_that_is_complained_of_can_be_raised():
    options = (
        "md",
        "tiny.safetensors",
        "ethanol.xyz",
        "--steps",
        2,
        "--cold-sample",
        0,
        "--folder",
        "mine",
    )
    assert "--max-temperature" in run(*options, "--max-temperature", 200, code=1)
    run(*options, "--max-temperature", 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--until", 1e-3), "--until goes with a number of --passes; received --until 0.001"),
        (("--secants", 0), "--secants goes with a number of --passes; received --secants 0"),
        (("--until", 1e-3, "--passes", "auto"), "and --passes auto"),
        (("--until", 0, "--passes", 4), "tolerance must be > 0 or None, received 0.0"),
    ],
)
def test_a_tolerance_of_joint_passes_goes_with_their_number(options, message):
    assert message in run("md", "tiny.safetensors", "ethanol.xyz", *options, code=1)


def test_velocities_that_are_not_there_cannot_be_kept():
    message = run("md", "tiny.safetensors", "ethanol.xyz", "--keep-velocities", code=1)
    assert "--keep-velocities needs a structure with velocities, received ethanol.xyz" in message
    assert not Path("runs").exists()


def test_joint_passes_can_stop_by_a_tolerance():
    run(
        *("md", "tiny.safetensors", "ethanol.xyz", "--steps", 12, "--cold-sample", 0),
        *("--passes", 9, "--until", 0.02, "--folder", "mine"),
    )
    passes = np.genfromtxt("mine/md/log.csv", delimiter=",", names=True)["passes"]
    assert 2 <= passes[-3:].min() <= passes[-3:].max() < 9


def test_relax_makes_its_folder():
    run("relax", "tiny.safetensors", "ethanol.xyz", "--steps", 1, "--folder", "mine", code=1)
    assert {path.name for path in Path("mine/relax").iterdir()} == {
        "relaxed.extxyz",
        "trajectory.extxyz",
    }
