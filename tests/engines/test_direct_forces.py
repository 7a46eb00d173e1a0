"""Potentials that engines refuse: forces that are no gradient, and atoms that feel everything."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError

from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.md import run_md
from equipoise.engines.relax import relax
from equipoise.potentials import InjectionConfig, Potential
from tests.potentials.structures import original


@pytest.fixture
def water() -> Atoms:
    return Atoms("OH2", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])


@pytest.fixture
def direct() -> Potential:
    return original(forces="direct", tolerance=1e-6)


@pytest.fixture
def global_norm() -> Potential:
    return original(injection=InjectionConfig(norm="batch_global_prev"), tolerance=1e-6)


def test_direct_forces_are_refused_with_a_reason(
    direct: Potential, water: Atoms, tmp_path: Path
) -> None:
    for use in (
        lambda: EquipoiseCalculator(direct),
        lambda: run_md(water, direct, steps=1, folder=tmp_path / "md", progress=False),
        lambda: relax(water, direct),
    ):
        with pytest.raises(ValueError, match="forces='direct'.* drifts .* allow_direct=True"):
            use()
    assert not list(tmp_path.iterdir())


def test_direct_forces_can_be_had_when_asked_for(
    direct: Potential, water: Atoms, tmp_path: Path
) -> None:
    water.calc = EquipoiseCalculator(direct, allow_direct=True)
    forces = water.get_forces()
    expected = direct(water.calc.evaluator.graph).forces.numpy()
    np.testing.assert_allclose(forces, expected, atol=1e-5)
    assert water.calc.adjoint_passes == 0
    result = run_md(
        water, direct, steps=3, folder=tmp_path / "md", allow_direct=True, progress=False
    )
    assert result.summary.steps == 3


def test_direct_forces_have_no_stress(direct: Potential) -> None:
    crystal = bulk("C", cubic=True)
    crystal.calc = EquipoiseCalculator(direct, allow_direct=True)
    assert np.isfinite(crystal.get_forces()).all()  # asks for no stress of its own accord
    with pytest.raises(PropertyNotImplementedError, match="stress is a derivative of the energy"):
        crystal.get_stress()


def test_dynamics_needs_a_local_potential(
    global_norm: Potential, water: Atoms, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="feel their neighbours only, .*'batch_global_prev'"):
        run_md(water, global_norm, steps=1, folder=tmp_path / "md", progress=False)
    # One structure by itself is well defined.
    water.calc = EquipoiseCalculator(global_norm)
    assert np.isfinite(water.get_forces()).all()
