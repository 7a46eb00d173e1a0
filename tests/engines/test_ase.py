"""The ASE calculator against the direct call, and against bad input."""

import ase.build
import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from equipoise.deq import Anderson
from equipoise.deq.predictors import Last
from equipoise.engines import EquipoiseCalculator, NonFiniteError, WarmStart
from equipoise.graph import Graph
from equipoise.potentials import UnconvergedError, save
from tests.engines.fakes import FakePotential, tiny_potential


def ethanol():
    return ase.build.molecule("CH3CH2OH")


def crystal():
    atoms = ase.build.bulk("Al", "bcc", cubic=True, a=2.9)
    atoms.rattle(0.1, seed=4)
    atoms.set_cell(atoms.cell @ np.array([[1, 0, 0], [0.1, 1, 0], [0, -0.05, 1.02]]), True)
    return atoms


POTENTIALS = {
    "fake": FakePotential,
    "equilibrium": tiny_potential,
    "stacked": lambda: tiny_potential("stacked"),
}


@pytest.mark.parametrize("kind", POTENTIALS)
@pytest.mark.parametrize("make", [ethanol, crystal])
def test_equals_the_direct_call_along_a_path(kind, make):
    potential, atoms = POTENTIALS[kind](), make()
    atoms.calc = EquipoiseCalculator(potential)
    rng = np.random.default_rng(5)
    for _ in range(3):
        direct = potential.eval()(
            Graph.from_ase(atoms, potential.cutoff, labels=False), stress=bool(atoms.pbc.all())
        )
        assert atoms.get_potential_energy() == pytest.approx(float(direct.energy), abs=1e-8)
        assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
        np.testing.assert_allclose(atoms.get_forces(), direct.forces, atol=2e-7)
        np.testing.assert_allclose(
            atoms.get_potential_energies(), direct.atomic_energies, atol=1e-7
        )
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), direct.stress[0], atol=1e-8)
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    assert atoms.calc.statistics.calls == 3  # energy, forces and stress in one go
    if kind == "stacked":
        assert (atoms.calc.passes, atoms.calc.statistics.warm_calls) == (0, 0)
    else:
        assert atoms.calc.statistics.warm_calls == 2


def test_forces_and_stress_are_ases_derivatives_of_the_energy():
    atoms = crystal()
    atoms.calc = EquipoiseCalculator(tiny_potential(tolerance=1e-11))
    forces = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[1])
    np.testing.assert_allclose(atoms.get_forces()[[1]], forces, rtol=1e-5, atol=1e-7)
    stress = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=1e-4, atol=1e-7)


def test_from_a_file(tmp_path):
    potential = tiny_potential()
    save(potential, tmp_path / "model.safetensors")
    energies = []
    for source in (potential, tmp_path / "model.safetensors"):
        atoms = ethanol()
        atoms.calc = EquipoiseCalculator(source)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]


def test_from_a_run_folder(tmp_path):
    save(tiny_potential(), tmp_path / "model.safetensors")
    calculator = EquipoiseCalculator(str(tmp_path), dtype=torch.float64)
    assert calculator.potential.cutoff == 4.0


@pytest.mark.parametrize("kind", POTENTIALS)
@pytest.mark.parametrize("make", [ethanol, crystal])
def test_the_energies_of_the_atoms_add_up(kind, make):
    potential, atoms = POTENTIALS[kind](), make()
    if kind == "equilibrium":  # far from the fixed point the correction is not small
        loose = Anderson(tolerance=1e-2)
        object.__setattr__(potential.config, "solver", loose)
        object.__setattr__(potential.config, "adjoint", loose)
    atoms.calc = EquipoiseCalculator(potential)
    energies = atoms.get_potential_energies()
    assert energies.shape == (len(atoms),)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), rel=0, abs=1e-9)


def test_warm_calls_take_fewer_passes_and_are_counted():
    potential, atoms = FakePotential(), ethanol()
    atoms.calc = EquipoiseCalculator(potential)
    passes = []
    for _ in range(5):
        atoms.positions[0, 0] += 0.005
        atoms.get_forces()
        passes.append(atoms.calc.passes)
    assert passes[-1] < 0.6 * passes[0]
    statistics = atoms.calc.statistics
    assert statistics.passes == sum(passes)
    assert (statistics.calls, statistics.warm_calls, statistics.neighbour_builds) == (5, 4, 1)
    cold = atoms.calc.evaluator.cold_passes()
    assert cold[0] > passes[-1] and cold[1] > atoms.calc.adjoint_passes
    assert atoms.calc.statistics == statistics


def test_without_warm_start_every_call_is_cold():
    potential, atoms = FakePotential(), ethanol()
    atoms.calc = EquipoiseCalculator(potential, warm_start=False)
    for _ in range(2):
        atoms.positions[0, 0] += 0.005
        atoms.get_forces()
    assert potential.starts == [None, None]


def test_uses_the_memory_it_is_given():
    memory, atoms = WarmStart(Last()), ethanol()
    atoms.calc = EquipoiseCalculator(FakePotential(), warm_start=memory)
    atoms.get_forces()
    assert memory.remembered == 1


def test_nothing_is_calculated_twice():
    potential, atoms = FakePotential(), crystal()
    atoms.calc = EquipoiseCalculator(potential)
    atoms.get_potential_energy()
    atoms.get_stress()
    atoms.set_initial_charges([1.0] * len(atoms))  # means nothing to the potential
    atoms.get_forces()
    assert potential.calls == 1


def test_results_are_copies():
    atoms = ethanol()
    atoms.calc = EquipoiseCalculator(FakePotential())
    atoms.get_forces()[:] = 0
    assert np.abs(atoms.get_forces()).max() > 0.01


def test_stress_of_a_slab_only_when_asked():
    potential = FakePotential()
    atoms = crystal()
    atoms.pbc = [True, True, False]
    atoms.calc = EquipoiseCalculator(potential)
    forces = atoms.get_forces()
    assert "stress" not in atoms.calc.results
    assert np.isfinite(atoms.get_stress()).all()
    assert potential.calls == 2
    np.testing.assert_array_equal(atoms.get_forces(), forces)  # not moved by the second call


def test_a_molecule_has_no_stress_but_keeps_its_forces():
    atoms = ethanol()
    atoms.calc = EquipoiseCalculator(FakePotential())
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="volume"):
        atoms.get_stress()
    assert "forces" in atoms.calc.results


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda atoms: atoms.symbols.__setitem__(0, "Fe"),
            "knows the elements H, C, O, Al, received Fe",
        ),
        (lambda atoms: atoms.positions.__setitem__((1, 2), np.nan), "finite.*atom 1"),
        (lambda atoms: atoms.positions.__setitem__((1, 2), np.inf), "finite.*atom 1"),
        (lambda atoms: atoms.positions.__setitem__(2, atoms.positions[3]), "atoms 2 and 3"),
        (lambda atoms: atoms.__delitem__(slice(None)), "at least one atom"),
    ],
)
def test_refuses_what_is_no_structure_and_recovers(change, message):
    good, atoms = ethanol(), ethanol()
    calculator = EquipoiseCalculator(FakePotential())
    good.calc = atoms.calc = calculator
    good.get_forces()
    change(atoms)
    with pytest.raises(ValueError, match=message):
        atoms.get_forces()
    assert calculator.results == {}
    assert np.isfinite(good.get_forces()).all()


def test_one_calculator_on_two_structures_stays_right():
    one, two = ethanol(), ethanol()
    two.rattle(0.3, seed=1)
    alone = [atoms.copy() for atoms in (one, two)]
    for atoms in alone:
        atoms.calc = EquipoiseCalculator(FakePotential())
    one.calc = two.calc = EquipoiseCalculator(FakePotential())
    for _ in range(2):
        for atoms, reference in zip((one, two), alone, strict=True):
            np.testing.assert_allclose(atoms.get_forces(), reference.get_forces(), atol=1e-8)
    assert one.calc.warm_start.forgotten == 3


@pytest.mark.parametrize("unconverged", ["error", "warn", "accept"])
def test_a_failed_warm_solve_is_repeated_from_nothing(unconverged):
    potential, atoms = FakePotential(), ethanol()
    potential.script[2] = "unconverged"
    atoms.calc = EquipoiseCalculator(potential, unconverged=unconverged)
    atoms.get_forces()
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    assert [start is None for start in potential.starts] == [True, False, True]
    assert potential.policies == [unconverged, "error", unconverged]
    statistics = atoms.calc.statistics
    assert (statistics.cold_retries, statistics.warm_calls) == (1, 0)
    assert atoms.calc.warm_start.remembered == 1  # the second solve is a good one


def test_a_structure_that_does_not_converge_is_accepted_only_from_nothing():
    potential, atoms = FakePotential(), ethanol()
    potential.script |= {2: "unconverged", 3: "unconverged"}
    atoms.calc = EquipoiseCalculator(potential, unconverged="accept")
    atoms.get_forces()
    atoms.positions[0, 0] += 0.01
    assert np.isfinite(atoms.get_forces()).all()
    assert (potential.calls, atoms.calc.warm_start.remembered) == (3, 0)


def test_a_failed_cold_solve_is_an_error():
    potential, atoms = FakePotential(), ethanol()
    potential.script[1] = "unconverged"
    atoms.calc = EquipoiseCalculator(potential)
    with pytest.raises(UnconvergedError):
        atoms.get_forces()
    assert np.isfinite(atoms.get_forces()).all()


def test_an_accepted_failure_is_not_remembered():
    potential, atoms = FakePotential(), ethanol()
    potential.script[1] = "unconverged"
    atoms.calc = EquipoiseCalculator(potential, unconverged="accept")
    atoms.get_forces()
    assert atoms.calc.warm_start.remembered == 0


def test_the_tiny_potential_without_convergence():
    solver = Anderson(tolerance=1e-12, max_passes=3)
    potential = tiny_potential()
    object.__setattr__(potential.config, "solver", solver)
    atoms = ethanol()
    atoms.calc = EquipoiseCalculator(potential)
    with pytest.raises(UnconvergedError, match="not converged"):
        atoms.get_forces()
    atoms.calc = EquipoiseCalculator(potential, unconverged="warn")
    with pytest.warns(RuntimeWarning, match="not converged"):
        assert np.isfinite(atoms.get_forces()).all()


def test_nan_from_the_potential_is_an_error():
    potential, atoms = FakePotential(), ethanol()
    potential.script[1] = "nan"
    atoms.calc = EquipoiseCalculator(potential)
    with pytest.raises(NonFiniteError, match="energy"):
        atoms.get_forces()
    assert atoms.calc.warm_start.remembered == 0


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ZeroDivisionError("x")])
def test_other_errors_pass_through_and_leave_no_results(error):
    potential, atoms = FakePotential(), ethanol()
    potential.script[2] = error
    atoms.calc = EquipoiseCalculator(potential)
    before = atoms.get_forces()
    atoms.positions[0, 0] += 0.01
    with pytest.raises(type(error)):
        atoms.get_forces()
    assert atoms.calc.results == {}
    assert not np.array_equal(atoms.get_forces(), before)


def test_refuses_options_it_cannot_follow():
    with pytest.raises(ValueError, match="unconverged must be"):
        EquipoiseCalculator(FakePotential(), unconverged="ignore")
    with pytest.raises(ValueError, match=r"potential\.to"):
        EquipoiseCalculator(FakePotential(), device="cpu")
    with pytest.raises(ValueError, match="skin"):
        EquipoiseCalculator(FakePotential(), skin=-1.0)


def test_refuses_half_a_state():
    with pytest.raises(ValueError, match="without adjoint_passes, residual"):
        EquipoiseCalculator(FakePotential()).restore(ethanol(), {"passes": np.array(1)})
