"""Structures with labels, and runs that take a blink."""

import io
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from rich.console import Console

from equipoise.train import Recipe, initial, make_recipe, trainer
from tests.fakes import FakePotential, build_fake, save_fake

TETRAHEDRON = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


@pytest.fixture(scope="session")
def structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 distorted tetrahedra with the energies and forces of a Lennard-Jones potential."""
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(26):
        atoms = ase.Atoms("HOCH", TETRAHEDRON + 0.1 * generator.standard_normal((4, 3)))
        atoms.calc = LennardJones(sigma=2.5, rc=20.0)
        atoms.info["REF_energy"] = atoms.get_potential_energy() - 100.0
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    path = tmp_path_factory.mktemp("structures") / "lj.extxyz"
    ase.io.write(path, frames)
    return path


@pytest.fixture
def recipe(structures: Path) -> Recipe:
    """20 structures to train on, 5 steps per epoch, 4 epochs."""
    return make_recipe(
        {
            "data": {"source": "file", "train": str(structures), "validation_count": 6},
            "training": {
                "epochs": 4,
                "batch_size": 4,
                "learning_rate": 1e-2,
                "jacobian_weight": 0.01,
                "jacobian_probability": 0.5,
            },
        }
    )


class Fakes:
    """Makes `fit` train a `FakePotential`, and lets a test reach into it."""

    def __init__(self) -> None:
        self.potentials: list[FakePotential] = []
        self.settings: dict[str, object] = {}

    def build(self, *args: object, **kwargs: object) -> FakePotential:
        potential = build_fake(*args, **kwargs)
        for name, value in self.settings.items():
            setattr(potential, name, value)
        self.potentials.append(potential)
        return potential


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes()
    monkeypatch.setattr(trainer, "build", fakes.build)
    monkeypatch.setattr(initial, "build", fakes.build)
    monkeypatch.setattr(trainer, "save", save_fake)
    return fakes


@pytest.fixture
def console() -> Console:
    """Not a terminal; what was printed is in `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)
