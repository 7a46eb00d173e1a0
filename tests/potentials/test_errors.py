"""Input that no potential can answer, and files that hold none."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from equipoise.deq import Anderson
from equipoise.graph import Graph
from equipoise.potentials import (
    PotentialConfig,
    Statistics,
    UnconvergedError,
    build,
    describe,
    load,
    save,
)
from tests.potentials.structures import SMALL, STATISTICS, crystal, molecule, potential


def test_unknown_element():
    with pytest.raises(
        ValueError,
        match=r"trained on the elements \[1, 6, 8\] only, received atomic numbers \[7, 79\]",
    ):
        potential()(Graph.build([[0.0, 0, 0], [1.2, 0, 0], [0, 2.0, 0]], [7, 79, 6], cutoff=4.0))


def test_foreign_cutoff():
    with pytest.raises(ValueError, match="cutoff 4.0 Å, received 5.0 Å"):
        potential()(molecule(cutoff=5.0))


def test_start_of_another_structure():
    model = potential()
    with pytest.raises(ValueError, match="one state per atom"):
        model(molecule(5), start=model(molecule(4)).equilibrium)


def test_stress_of_a_molecule():
    with pytest.raises(ValueError, match="stress needs a periodic cell with a volume"):
        potential()(molecule(), stress=True)


def test_not_a_graph_and_not_finite():
    with pytest.raises(TypeError, match="Graph"):
        potential()([1, 2])
    graph = molecule()
    broken = graph.replace(positions=graph.positions * torch.nan)
    with pytest.raises(ValueError, match="positions and cell must be finite"):
        potential("stacked")(broken)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="outside of it"):
        potential()(graph)


def test_stress_of_a_molecule_in_a_box():
    graph = molecule()
    boxed = graph.replace(cell=20 * torch.eye(3, dtype=torch.float64)[None])
    with pytest.raises(ValueError, match="stress needs a periodic cell"):
        potential()(boxed, stress=True)


def test_a_loaded_potential_can_be_trained_further(tmp_path):
    save(potential(), tmp_path / "model.safetensors")
    model = load(tmp_path).train()  # a folder will do
    model(molecule()).forces.square().sum().backward()
    assert model.head.out.weight.grad.abs().max() > 0


def test_unconverged_solves_are_never_silent():
    solver = Anderson(tolerance=1e-12, max_passes=2)
    model = build(PotentialConfig(backbone=SMALL, solver=solver), STATISTICS).eval()
    with pytest.raises(
        UnconvergedError, match="fixed point of 1 of 1 structures .* after 3 passes"
    ) as error:
        model(molecule())
    assert not error.value.solution.converged
    with pytest.warns(RuntimeWarning, match="not converged"):
        model(molecule(), unconverged="warn")
    assert not model(molecule(), unconverged="accept").equilibrium.converged
    with pytest.raises(ValueError, match="unconverged must be one of"):
        model(molecule(), unconverged="ignore")
    adjoint = build(PotentialConfig(backbone=SMALL, adjoint=solver), STATISTICS).eval()
    with pytest.raises(UnconvergedError, match="adjoint of 1 of 1 structures"):
        adjoint(molecule())


def test_settings():
    with pytest.raises(ValueError, match="needs backbone.norm='post'"):
        PotentialConfig(backbone=replace(SMALL, norm="pre"))
    with pytest.raises(ValueError, match="kind must be"):
        PotentialConfig(kind="explicit")
    with pytest.raises(ValueError, match="hidden must be a multiple of heads=2, received 7"):
        replace(SMALL, hidden=7)
    with pytest.raises(ValueError, match="hidden must be at least twice heads=2, received 2"):
        replace(SMALL, hidden=2)
    with pytest.raises(ValueError, match="mean_neighbours and mean_atoms must be finite"):
        Statistics((1,), (0.0,), 1.0, float("nan"), 1.0)
    with pytest.raises(ValueError, match="atomic numbers from 1 to 118"):
        Statistics((1, 200), (0.0, 0.0), 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="reference energies must be finite"):
        Statistics((1,), (float("nan"),), 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="one reference energy per element"):
        Statistics((1, 6), (0.0,), 1.0, 1.0, 1.0)


def test_save_and_load_give_the_same_numbers(tmp_path):
    model, path = potential(), tmp_path / "model.safetensors"
    save(model, path, extra={"remark": "x"})
    again = load(path)
    assert not again.training
    torch.testing.assert_close(again(crystal()).forces, model(crystal()).forces, rtol=0, atol=1e-10)
    assert describe(path)["extra"] == {"remark": "x"}
    assert not list(tmp_path.glob("*.partial"))
    double = load(path, dtype=torch.float64)
    assert double.dtype == torch.float64
    # Casting the network must not round reference energies.
    assert torch.equal(
        load(path, dtype=torch.float32).reference[[1, 6, 8]], model.reference[[1, 6, 8]]
    )
    assert torch.equal(potential().float().reference[[1, 6, 8]], model.reference[[1, 6, 8]])


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file"):
        load(tmp_path / "missing.safetensors")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"PK\x03\x04 something pickled")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(garbage)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.ones(2)}, foreign)
    with pytest.raises(ValueError, match="not one of equipoise"):
        load(foreign)
    path = tmp_path / "model.safetensors"
    save(potential(), path)
    content = path.read_bytes()
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load(truncated)
    header = json.dumps({"schema_version": 99})
    save_file({"w": torch.ones(2)}, foreign, metadata={"equipoise": header})
    with pytest.raises(ValueError, match="schema 99"):
        load(foreign)
    for damaged in ("{not json", "[1]"):
        save_file({"w": torch.ones(2)}, foreign, metadata={"equipoise": damaged})
        with pytest.raises(ValueError, match="damaged"):
            load(foreign)
    header = describe(path) | {"config": {"kind": "equilibrium", "colour": "blue"}}
    save_file({"w": torch.ones(2)}, foreign, metadata={"equipoise": json.dumps(header)})
    with pytest.raises(ValueError, match="settings that this version does not know"):
        load(foreign)
    header = describe(path)
    save_file({"w": torch.ones(2)}, foreign, metadata={"equipoise": json.dumps(header)})
    with pytest.raises(ValueError, match="do not fit its configuration"):
        load(foreign)


@pytest.mark.parametrize("asked", [{"unrolled": 2}, {"penalty": 0.0}])
def test_an_explicit_network_is_not_asked_for_what_only_a_fixed_point_has(asked):
    with pytest.raises(ValueError, match="an explicit network has no fixed point"):
        potential("stacked")(molecule(), **asked)


def test_energies_of_positions_that_belong_to_a_graph():
    graph = molecule()
    positions = graph.positions.clone().requires_grad_()
    energy = potential()(replace(graph, positions=positions), forces=False).energy
    torch.testing.assert_close(energy, potential()(graph, forces=False).energy)
