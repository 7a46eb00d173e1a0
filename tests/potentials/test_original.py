"""Potentials on the original EquiformerV2: its heads, the injections of the DEQ research code, and its weights."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from equipoise.backbones.equiformer_v2_original import presets
from equipoise.deq import Anderson
from equipoise.graph import batch
from equipoise.potentials import (
    InjectionConfig,
    PotentialConfig,
    Statistics,
    build,
    from_research_code,
    load,
    save,
)
from tests.backbones.equiformer_v2_original.oracle import IMPLICIT, STACKS, error, oracle
from tests.potentials.structures import STATISTICS, crystal, molecule, moved, original, potential

# Everything that has a map of its own; the first is the default.
INJECTIONS = [
    InjectionConfig(),
    InjectionConfig(kind="cat"),
    InjectionConfig(kind="lc"),
    InjectionConfig(kind="swlc"),
    InjectionConfig(kind="cwlc"),
    InjectionConfig(norm="batch_global_prev"),
    InjectionConfig(kind="cat", norm="batch_global_one"),
]
VARIETY = [{"injection": injection} for injection in INJECTIONS] + [
    {"placement": "post", "norm": "layer_norm", "injection": InjectionConfig(norm="none")},
    {"placement": "pp", "norm": "rms_norm_sh", "norm_start": True},
    {"weight_norm": True, "layers": 3, "norm_scale": "norm"},
    {"energy_head": False, "attention_activation": "gate", "ffn_activation": "gate"},
]


def assert_forces_are_the_gradient(predict, graph, bound):
    # Gaussians of 0.3 Å want a smaller step than the smooth functions of the other backbone.
    forces, step = predict(graph).forces, 3e-5
    direction = torch.randn(forces.shape, generator=torch.Generator().manual_seed(0)).double()
    energies = []
    for sign in (1, -1):
        there = moved(graph, graph.positions + sign * step * direction)
        energies.append(predict(there).energy.item())
    numeric = -(energies[0] - energies[1]) / (2 * step)
    size = forces.norm() * direction.norm()
    assert abs(numeric - (forces * direction).sum().item()) < bound * size


@pytest.mark.parametrize("changes", VARIETY, ids=str)
def test_forces_are_the_gradient_of_the_energy(changes):
    assert_forces_are_the_gradient(original(**changes, tolerance=1e-9), molecule(4), 1e-5)


def test_an_explicit_stack_is_conservative_too():
    predict = original("stacked", layers=2)
    assert_forces_are_the_gradient(predict, crystal(), 1e-5)
    assert predict(molecule()).equilibrium is None and predict.contraction(molecule()) is None


@pytest.mark.parametrize("changes", VARIETY[:5] + VARIETY[7:], ids=str)
def test_batch_equals_singles(changes):
    predict, graphs = original(**changes, tolerance=1e-9), [molecule(4, seed=1), crystal()]
    together, alone = predict(batch(graphs)), [predict(graph) for graph in graphs]
    for name in ("energy", "forces"):
        expected = torch.cat([getattr(each, name) for each in alone])
        torch.testing.assert_close(getattr(together, name), expected, rtol=0, atol=1e-8)


def test_an_isolated_atom_is_at_an_unstable_fixed_point():
    """Norms that divide degrees by their own size blow up what vanishes by symmetry. Not so the norm of the smooth backbone."""
    assert original().contraction(molecule(1)) > 1
    assert original(norm="rms_norm_sh", placement="pp").contraction(molecule(1)) < 1
    assert potential().contraction(molecule(1)) < 1


def test_a_norm_over_the_batch_takes_one_structure_at_a_time():
    predict = original(injection=InjectionConfig(norm="batch_global_prev"))
    graphs = [molecule(4, seed=1), crystal()]
    assert not predict.local and original().local
    with pytest.raises(ValueError, match="one structure at a time, received 2"):
        predict(batch(graphs))
    # What can be said of each is said of each.
    together = predict.contraction(batch(graphs))
    alone = torch.cat([predict.contraction(graph) for graph in graphs])
    assert torch.equal(together, alone) and (together < 1).all()
    # And the reason: an atom out of reach changes the energy of the others.
    far = molecule(4, shift=(100.0, 0, 0))
    both = type(far).build(
        torch.cat([graphs[0].positions, far.positions]),
        torch.cat([graphs[0].species, far.species]),
        cutoff=4.0,
    )
    sum_of_parts = predict(graphs[0]).energy + predict(far).energy
    assert abs(predict(both).energy - sum_of_parts).item() > 1e-8


@pytest.mark.parametrize(
    "start", [{"start": "embedding"}, {"start": "normal", "start_std": 0.3}], ids=str
)
def test_where_a_solve_begins_does_not_matter(start):
    graph, expected = molecule(), original()(molecule())
    predict = original(injection=InjectionConfig(**start))
    found = predict(graph)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-9)
    first = found.equilibrium.first_residual
    assert not torch.equal(first, expected.equilibrium.first_residual)
    assert torch.equal(found.forces, predict(graph).forces)


# Weights of an equilibrium with both heads: reference implementation, for halftiny, with weight norm and without.
COUNTS = {
    ("add", 1, True): 672_498,
    ("add", 1, False): 670_242,
    ("add", 2, True): 1_007_026,
    ("add", 2, False): 1_002_514,
    ("cat", 1, True): 917_234,
    ("cat", 2, True): 1_251_762,
}


@pytest.mark.parametrize(("kind", "layers", "weight_norm"), COUNTS, ids=str)
def test_sizes_are_those_of_the_research_code(kind, layers, weight_norm):
    backbone = replace(presets["halftiny_l3"], layers=layers, weight_norm=weight_norm)
    injection = InjectionConfig(kind=kind, norm="batch_global_prev")
    made = build(PotentialConfig(backbone=backbone, injection=injection), STATISTICS)
    count = sum(parameter.numel() for parameter in made.parameters())
    assert count == COUNTS[kind, layers, weight_norm]
    # The norms of each atom: (lmax + 1) · C weights and C biases, twice; twice the channels after "cat".
    local = build(replace(made.config, injection=InjectionConfig(kind=kind)), STATISTICS)
    extra = (3 if kind == "cat" else 2) * 5 * 64
    assert sum(parameter.numel() for parameter in local.parameters()) == count + extra


UNITS = Statistics((1, 6, 8), (0.0, 0.0, 0.0), 1.0, 8.0, 21.0)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_weights_of_the_research_code_give_its_numbers(forces, tmp_path):
    recorded, tight = oracle(IMPLICIT), Anderson(tolerance=1e-11, max_passes=200)
    made, report = from_research_code(
        recorded.settings,
        recorded.state,
        UNITS,
        forces=forces,
        solver=tight,
        adjoint=tight,
        dtype="float64",
    )
    assert len(report.mapped) == len(recorded.state)
    save(made, tmp_path / "model.safetensors")
    found = load(tmp_path / "model.safetensors")
    assert found.config == made.config and found.config.injection.norm == "batch_global_prev"
    prediction = found(recorded.graph)
    assert error(prediction.energy, recorded["out_f64/energy"]) < 1e-10
    assert prediction.conservative == (forces == "gradient")
    if forces == "direct":
        # Random rolls there, definite ones here; with theirs the numbers are the same.
        assert error(prediction.forces, recorded["out_f64/forces"]) < 1e-6
        found.backbone.encode = partial(found.backbone.encode, frames=recorded.frames)
        assert error(found(recorded.graph).forces, recorded["out_f64/forces"]) < 1e-9


def test_an_explicit_stack_of_the_original_code_comes_over_as_well():
    recorded = oracle(STACKS[0])
    made, _ = from_research_code(
        recorded.settings, recorded.state, UNITS, forces="direct", dtype="float64"
    )
    prediction = made(recorded.graph)
    assert made.config.kind == "stacked"
    assert error(prediction.energy, recorded["out_f64/energy"]) < 1e-8
    assert error(prediction.forces, recorded["out_f64/forces_direct"]) < 1e-5


def test_what_the_research_code_says_and_nobody_understands():
    recorded = oracle(IMPLICIT)
    for change, message in (
        ({"z0": "zeros"}, r"z0 must be one of .*, received 'zeros'; did you mean 'zero'\?"),
        ({"stacks": 2}, "stacks must be 1, received 2"),
    ):
        with pytest.raises(ValueError, match=message):
            from_research_code(recorded.settings | change, recorded.state, UNITS)
    for z0, expected in (
        ("emb", ("embedding", 0.0, 1.0)),
        ("normal_0.0_0.5", ("normal", 0.0, 0.5)),
    ):
        made, _ = from_research_code(recorded.settings | {"z0": z0}, recorded.state, UNITS)
        start = made.config.injection
        assert (start.start, start.start_mean, start.start_std) == expected


@pytest.mark.parametrize("kind", ["equilibrium", "stacked"])
def test_direct_forces_say_that_they_are(kind):
    predict, graph = original(kind, forces="direct"), molecule()
    prediction, conservative = predict(graph), original(kind)(graph)
    assert not prediction.conservative and not predict.conservative
    assert conservative.conservative and original(kind).conservative
    # The same energy, other forces, which do not even add up to zero.
    torch.testing.assert_close(prediction.energy, conservative.energy, rtol=0, atol=1e-8)
    assert (prediction.forces - conservative.forces).norm() > 0.1 * prediction.forces.norm()
    assert prediction.forces.sum(0).abs().max() > 1e-3 * prediction.forces.abs().max()
    assert not prediction.forces.requires_grad and predict(graph, forces=False).forces is None
    if kind == "equilibrium":
        assert prediction.equilibrium.adjoint is None
        assert prediction.passes < conservative.passes
    with pytest.raises(ValueError, match="stress is a derivative of the energy"):
        predict(crystal(), stress=True)
    predict.train()
    predict(graph).forces.square().sum().backward()
    for part in (predict.backbone.force.out, predict.backbone.blocks[0].ffn.first):
        assert part.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"injection": InjectionConfig(norm="none")},
            "needs blocks that end with a norm: with backbone.placement='pre' .* no fixed point",
        ),
        ({"path_drop": 0.05}, "backbone.path_drop must be 0 in an equilibrium .* received 0.05"),
        (
            {"backbone": {"injection": "add"}},
            "backbone.injection must be left out of a potential, .* received 'add'",
        ),
        ({"forces": "direct", "force_head": False}, "needs backbone.force_head=true"),
        ({"forces": "both"}, "forces must be 'gradient' or 'direct', received 'both'"),
        ({"elements": 8}, "backbone.elements must be > 8, the highest atomic number"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        if "backbone" in changes:
            PotentialConfig(backbone=replace(presets["halftiny_l3"], **changes["backbone"]))
        original(**changes)


def test_what_bounds_the_state_is_not_refused():
    """Dropout is for stacks, and norms at the end make a norm after the injection unnecessary."""
    none = InjectionConfig(norm="none")
    assert original("stacked", path_drop=0.1, injection=none)(molecule()).forces is not None
    for changes in ({"placement": "pp"}, {"norm_block_end": True}):
        assert original(injection=none, **changes)(molecule()).equilibrium.converged
