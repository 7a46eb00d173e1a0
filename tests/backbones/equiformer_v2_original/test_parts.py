from dataclasses import fields, replace

import e3nn.o3
import pytest
import torch

from equipoise.backbones.equiformer_v2_original import (
    EquiformerV2Original,
    config_from_original,
    presets,
)
from equipoise.backbones.equiformer_v2_original.frames import (
    check_frames,
    quaternion_of,
    rotation_of,
)
from equipoise.backbones.equiformer_v2_original.grid import SphereGrid
from equipoise.backbones.equiformer_v2_original.norms import make_norm
from equipoise.equivariant import SphericalSpace, edge_quaternion, edge_rows
from tests.backbones.backbone_tests import TURN
from tests.backbones.equiformer_v2_original.networks import EXACT, SMALL, network
from tests.backbones.equiformer_v2_original.oracle import oracle
from tests.potentials.structures import molecule

F64 = torch.float64
# With both heads and 90 elements; from the research code itself.
COUNTS = {
    "halftiny_l3": {1: 670_242, 2: 1_002_514, 4: 1_667_058, 8: 2_996_146},
    "tiny_l3": {1: 1_404_674, 2: 2_088_930, 4: 3_457_442, 8: 6_194_466},
    "tiny_l6": {1: 3_460_994, 2: 5_185_410, 4: 8_634_242, 8: 15_531_906},
    "small_l3": {1: 4_766_210, 2: 7_101_122, 4: 11_770_946, 8: 21_110_594},
    "reg_l6": {1: 12_835_202, 2: 19_228_802, 4: 32_016_002, 8: 57_590_402},
}
# Implicit layers of halftiny_l3 with weight norm: settings, layers, count.
IMPLICIT_COUNTS = [
    ("halftiny_l3", "add", 1, 672_498),
    ("halftiny_l3", "add", 2, 1_007_026),
    ("halftiny_l3", "cat", 1, 917_234),
    ("halftiny_l3", "cat", 2, 1_251_762),
    ("tiny_l3", "add", 1, 1_408_098),
    ("tiny_l3", "add", 2, 2_095_778),
    ("small_l3", "add", 1, 4_772_546),
    ("reg_l6", "add", 2, 19_251_842),
]


def parameters(config):
    with torch.device("meta"):
        made = EquiformerV2Original(config)
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_those_of_the_original(name):
    for layers, count in COUNTS[name].items():
        assert parameters(replace(presets[name], layers=layers)) == count


@pytest.mark.parametrize(("name", "injection", "layers", "count"), IMPLICIT_COUNTS)
def test_parameter_counts_of_implicit_layers(name, injection, layers, count):
    config = replace(presets[name], layers=layers, injection=injection, injection_norm="prev")
    assert parameters(replace(config, weight_norm=True)) == count


@pytest.mark.parametrize(
    ("name", "millions"), [("oc20_31m", 31), ("oc20_83m", 83), ("oc20_153m", 153)]
)
def test_oc20_models_are_as_large_as_their_names_say(name, millions):
    assert parameters(presets[name]) // 10**6 == millions


def test_a_quaternion_and_its_matrix_are_the_same_rotation():
    quaternion = torch.nn.functional.normalize(torch.randn(200, 4, dtype=F64), dim=1)
    # The identity, and half turns about every axis: where single formulas lose all digits.
    quaternion = torch.cat([quaternion, torch.eye(4, dtype=F64)])
    matrix = rotation_of(quaternion)
    torch.testing.assert_close(matrix, e3nn.o3.quaternion_to_matrix(quaternion), rtol=0, atol=1e-14)
    back = quaternion_of(matrix)
    same = (back * quaternion).sum(1).abs()
    torch.testing.assert_close(same, torch.ones_like(same), rtol=0, atol=1e-14)


def test_frames_must_take_the_edge_to_the_pole():
    unit = torch.nn.functional.normalize(torch.randn(5, 3, dtype=F64), dim=1)
    frames = rotation_of(edge_quaternion(unit))
    assert check_frames(frames, unit) is frames
    for wrong in (
        rotation_of(edge_quaternion(-unit)),
        1.01 * frames,
        frames * torch.tensor([[-1.0], [1], [1]]),
    ):
        with pytest.raises(ValueError, match="frames must be rotations that take each direction"):
            check_frames(wrong, unit)


@pytest.mark.parametrize(
    ("lmax", "mmax", "resolution"), [(3, 3, None), (3, 3, 14), (4, 2, None), (6, 6, 18)]
)
def test_a_grid_gives_back_what_it_was_given(lmax, mmax, resolution):
    grid = SphereGrid(lmax, mmax, edge_rows(lmax, mmax), resolution)
    x = torch.randn(3, len(edge_rows(lmax, mmax)), 2, dtype=F64)
    back = grid.project(grid.sample(x))
    enlarged = [max(1.0, (2 * degree + 1) / (2 * mmax + 1)) for degree, _ in edge_rows(lmax, mmax)]
    torch.testing.assert_close(
        back, x * torch.tensor(enlarged, dtype=F64)[:, None], rtol=0, atol=1e-12
    )


def test_a_grid_keeps_the_variance():
    grid = SphereGrid(3, 3, edge_rows(3, 3), 14)
    values = grid.sample(torch.randn(4000, 16, 1, dtype=F64))
    assert abs(values.var() - 1) < 0.02


@pytest.mark.parametrize("scale", ["component", "norm"])
@pytest.mark.parametrize("kind", ["layer_norm_sh", "layer_norm", "rms_norm_sh"])
def test_norms_have_their_size_and_turn_with_the_state(kind, scale):
    norm = make_norm(kind, 3, 50, scale=scale).double()
    space = SphericalSpace(3, 50)
    x = 7 * torch.randn(4, *space.shape, dtype=F64) + 2
    y = norm(x)
    power = torch.stack([part.square().sum(1).mean(1) for part in y.split([1, 3, 5, 7], 1)])
    if scale == "component":
        power = power / torch.tensor([[1.0], [3], [5], [7]], dtype=F64)
    if kind == "rms_norm_sh":
        size = power.mean(0) if scale == "component" else power.sum(0)
    elif kind == "layer_norm":
        size = power
    else:
        size = torch.stack(
            [power[0], power[1:].mean(0) if scale == "component" else power[1:].sum(0)]
        )
    torch.testing.assert_close(size, torch.ones_like(size), rtol=0, atol=1e-4)
    assert y[:, 0].mean(1).abs().max() < 1e-12
    torch.testing.assert_close(norm(space.act(x, TURN)), space.act(y, TURN), rtol=0, atol=1e-12)


def test_radial_weights_shared_by_m_are_a_special_case():
    graph = molecule(5)
    shared, free = network(share_m_radial=True), network()
    free.load_state_dict(
        {
            name: value
            for name, value in shared.state_dict().items()
            if not name.endswith(("attention.radial.net.6.weight", "attention.radial.net.6.bias"))
            and not name.startswith("force.radial.net.6")
        },
        strict=False,
    )
    # (l, |m|) takes the weights of l: m = 0 for l = 0, 1, 2; m = 1 for l = 1, 2; m = 2 for l = 2.
    degrees = torch.tensor([0, 1, 2, 1, 2, 2])
    for ours, theirs in (
        (free.blocks[0].attention.radial, shared.blocks[0].attention.radial),
        (free.force.radial, shared.force.radial),
    ):
        for name in ("weight", "bias"):
            value = getattr(theirs.net[6], name).detach().unflatten(0, (3, -1))[degrees]
            getattr(ours.net[6], name).data.copy_(value.flatten(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(free(graph).forces, shared(graph).forces, rtol=0, atol=1e-13)


def test_element_tables_shared_by_all_are_a_special_case():
    graph = molecule(5)
    shared, free = network(edge_elements="shared"), network(edge_elements="block")
    free.load_state_dict(
        {
            name: value
            for name, value in shared.state_dict().items()
            if not name.startswith("pair.")
        },
        strict=False,
    )
    for radial in (free.degree, free.blocks[0].attention.radial, free.force.radial):
        radial.pair.load_state_dict(shared.pair.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(free(graph).forces, shared(graph).forces, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["separable_grid_mlp", "separable_s2", "gate", "s2"])
def test_the_energy_needs_only_the_scalar_output(kind):
    made = network(ffn_activation=kind)
    z = torch.randn(3, *made.space.shape, dtype=F64)
    with torch.no_grad():
        torch.testing.assert_close(made.energy.scalars(z), made.energy(z)[:, 0], rtol=0, atol=1e-13)


def test_weight_norm_does_not_change_the_map():
    graph = molecule(5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = EquiformerV2Original(SMALL).eval()
        torch.manual_seed(3)
        normed = EquiformerV2Original(replace(SMALL, weight_norm=True)).eval()
    with torch.no_grad():
        expected = plain(graph).forces
        assert (normed(graph).forces - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_fresh_weights_are_spread_as_in_the_original(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = EquiformerV2Original(replace(SMALL, hidden=64, channels=32, initialisation=kind))
    first = made.blocks[0].attention.first
    flat = 1.0 if kind == "normal" else 3**-0.5  # standard deviation of U(-1, 1)
    spread = first.axial.weight.std() * first.axial.in_features**0.5
    assert abs(spread / flat - 1) < 0.05
    ratio = first.orders[0].weight.std() * first.orders[0].in_features ** 0.5 / flat
    assert abs(ratio - (1.0 if kind == "normal" else 0.5**0.5)) < 0.05
    assert (
        made.blocks[0].attention.radial.net[0].weight.abs().max()
        <= made.degree.net[0].in_features ** -0.5
    )
    assert not first.axial.bias.any()


@pytest.mark.parametrize("kind", ["add", "cat", "lc", "swlc", "cwlc"])
def test_injections_turn_with_the_state_or_admit_that_they_do_not(kind):
    made, graph = network(**EXACT, injection=kind), molecule(4)
    context = made.encode(graph, graph.edge_vectors())
    u = made.start(context)
    z, act = u + torch.randn_like(u), made.space.act
    with torch.no_grad():
        assert made.step(z, u, context).shape == z.shape
        joined = made.injection(z, u)
        doubled = SphericalSpace(made.space.lmax, joined.shape[2])
        deviation = (
            (made.injection(act(z, TURN), act(u, TURN)) - doubled.act(joined, TURN)).abs().max()
        )
    assert (deviation < 1e-12) == made.injection.equivariant
    if kind == "add":
        assert torch.equal(joined, z + u)


def test_norms_over_the_batch_are_refused_for_batches():
    z, u = torch.randn(2, 4, 9, 4, dtype=F64)
    previous, one = (
        network(injection="add", injection_norm=name).injection for name in ("prev", "one")
    )
    torch.testing.assert_close(previous(z, u).norm(), u.norm())
    torch.testing.assert_close(one(z, u).norm(), torch.tensor(1.0, dtype=F64))
    assert not previous.local and network(injection="add").injection.local
    with pytest.raises(ValueError, match="takes one structure at a time, received 2"):
        one(z, u, structures=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmax": 11}, "lmax must lie between 1 and 10, received 11"),
        ({"mmax": 3}, "mmax must lie between 0 and lmax=2, received 3"),
        ({"grid": 7}, "grid must be even and >= 2, or None, received 7"),
        ({"cutoff": 0.0}, "cutoff must be > 0, received 0.0"),
        ({"heads": 0}, "heads must be >= 1, received 0"),
        ({"gaussians": 1}, "gaussians must be >= 2, received 1"),
        ({"max_neighbours": 0}, "max_neighbours must be >= 1 or None, received 0"),
        ({"alpha_drop": 1.0}, r"alpha_drop must lie in \[0, 1\), received 1.0"),
        ({"norm": "batch"}, "norm must be one of .*, received 'batch'"),
        ({"injection_norm": "prev"}, "injection_norm must be None without an injection"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_settings_of_the_original_are_understood():
    settings = oracle("l3").settings
    config = config_from_original(settings)
    assert (config.lmax, config.mmax, config.grid, config.norm) == (3, 2, 14, "layer_norm_sh")
    assert config.ffn_activation == "separable_grid_mlp"
    assert (
        config_from_original({**settings, "use_grid_mlp": False}).ffn_activation == "separable_s2"
    )
    gate = config_from_original({**settings, "use_gate_act": True})
    assert (gate.attention_activation, gate.ffn_activation) == ("gate", "separable_grid_mlp")
    assert (
        config_from_original({**settings, "share_atom_edge_embedding": True}).edge_elements
        == "shared"
    )
    fork = config_from_original(oracle("fork_deq_l3").settings)
    assert (fork.injection, fork.injection_norm, fork.norm_scale) == ("add", "prev", "norm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sphere_chanels": 3}, "received 'sphere_chanels'; did you mean 'sphere_channels'"),
        ({"lmax_list": [2, 3]}, r"lmax_list must hold one number .* received \[2, 3\]"),
        ({"use_s2_act_attn": True}, "use_s2_act_attn must be one of"),
        ({"ffn_activation": "swiglu"}, "ffn_activation must be one of .* received 'swiglu'"),
    ],
)
def test_settings_that_are_not_understood_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_original({**oracle("l3").settings, **change})


def test_settings_that_would_have_to_be_guessed_are_refused():
    settings = dict(oracle("l3").settings)
    del settings["use_grid_mlp"]
    with pytest.raises(ValueError, match=r"settings must say \['use_grid_mlp'\]"):
        config_from_original(settings)


def test_every_preset_says_all_it_differs_in():
    assert (
        len(
            {
                tuple(getattr(config, field.name) for field in fields(config))
                for config in presets.values()
            }
        )
        == 9
    )
