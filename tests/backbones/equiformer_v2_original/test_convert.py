import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from equipoise.backbones.equiformer_v2_original import load_original, read_state, to_original
from tests.backbones.equiformer_v2_original.networks import network
from tests.backbones.equiformer_v2_original.oracle import IMPLICIT, STACKS, oracle
from tests.potentials.structures import molecule

# Everything that has weights of its own, for both dialects ("fork") or for one.
VARIETY = [
    {},
    {"attention_activation": "gate", "ffn_activation": "gate", "norm": "rms_norm_sh"},
    {"ffn_activation": "separable_s2", "norm": "layer_norm", "renormalise": False},
    {"ffn_activation": "grid_mlp", "share_m_radial": True, "edge_elements": "shared"},
    {"edge_elements": "none", "norm_affine": False, "energy_head": False},
]
FORK = [
    {"placement": "post", "norm_block_end": True},
    {"placement": "pp", "norm_start": True, "injection": "swlc"},
    {"injection": "cat", "layers": 2, "weight_norm": True},
]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("name", [*STACKS, IMPLICIT])
def test_recorded_weights_come_back_as_they_were(name):
    recorded = oracle(name)
    back = to_original(
        recorded.network(torch.float32), dialect="fork" if name == IMPLICIT else "upstream"
    )
    assert equal(back, recorded.state)


@pytest.mark.parametrize("dialect", ["upstream", "fork"])
@pytest.mark.parametrize("changes", [*VARIETY, *FORK], ids=str)
def test_weights_go_out_and_come_in_again(changes, dialect):
    if changes in FORK and dialect == "upstream":
        with pytest.raises(ValueError, match="upstream knows neither norms after the residual"):
            to_original(network(**changes), dialect=dialect)
        return
    first, second = network(**changes), network(seed=1, **changes)
    assert not equal(first.state_dict(), second.state_dict())
    exported = to_original(first, dialect=dialect)
    assert len(exported) == len(dict(first.named_parameters()))
    report = load_original(second, exported)
    assert equal(first.state_dict(), second.state_dict())
    assert sorted(report.mapped.values()) == sorted(dict(first.named_parameters()))
    assert report.mapped.keys() == exported.keys() and not report.ignored


def test_names_are_those_of_the_two_codes():
    upstream = to_original(network(**VARIETY[1]))
    fork = to_original(network(**VARIETY[1]), dialect="fork")
    for theirs, shape in {
        "sphere_embedding.weight": (9, 4),
        "edge_degree_embedding.source_embedding.weight": (9, 4),
        "edge_degree_embedding.rad_func.net.6.bias": (12,),
        "blocks.0.norm_2.affine_bias": (4,),
        "blocks.0.ga.so2_conv_1.fc_m0.weight": (6 + 8 + 12, 24),
        "blocks.0.ga.so2_conv_1.rad_func.net.0.weight": (4, 32),
        "blocks.0.ga.alpha_dot": (2, 3),
        "blocks.0.ga.proj.weight": (3, 4, 4),
        "blocks.0.ffn.gating_linear.weight": (10, 4),
        "energy_block.so3_linear_2.weight": (3, 1, 5),
        "force_block.proj.bias": (1,),
        "norm.affine_weight": (3, 4),
    }.items():
        assert upstream[theirs].shape == shape, theirs
    # Names that the fork owes to a replacement of "ga" by "graph_attention".
    assert "blocks.0.ffn.graph_attentionting_linear.weight" in fork
    assert (
        "blocks.0.graph_attention.alpha_dot" in fork and "blocks.0.norm_2_pre.affine_bias" in fork
    )
    shared = to_original(network(**VARIETY[3]))
    assert "blocks.0.ga.rad_func.net.0.weight" in shared and "source_embedding.weight" in shared
    assert "blocks.0.norm_2_post.norm_l0.weight" in to_original(network(**FORK[0]), dialect="fork")
    both = to_original(network(**FORK[1]), dialect="fork")
    assert {
        "inj_w1",
        "inj_w2",
        "norm_enc.affine_weight",
        "blocks.0.norm_2_pre.affine_weight",
    } <= both.keys()
    assert "blocks.0.norm_1.affine_weight" in both
    doubled = to_original(network(**FORK[2]), dialect="fork")
    assert doubled["blocks.0.ffn_shortcut.weight"].shape == (3, 4, 8)
    assert doubled["blocks.0.graph_attention.so2_conv_1.fc_m0.weight_g"].shape[1] == 1


def test_prefixes_are_cut_and_tables_ignored_and_reported():
    made = network()
    state = {f"module.module.{name}": value for name, value in to_original(made).items()}
    tables = {
        "distance_expansion.offset": torch.linspace(0, 4, 24),
        "SO3_grid.2.2.to_grid_mat": torch.zeros(8, 8, 9),
        "blocks.0.ga.SO3_rotation.0.mapping.to_m": torch.eye(9),
        "blocks.0.ga.proj.expand_index": torch.zeros(9, dtype=torch.int64),
        "norm.balance_degree_weight": torch.ones(8, 1),
        "blocks.0.noise_in.m_mul": torch.zeros(3),
    }
    state |= {f"module.module.{name}": value for name, value in tables.items()}
    report = load_original(network(seed=1), state)
    assert report.prefix == "module.module."
    assert set(report.ignored) == set(tables)
    assert "6 buffers ignored" in str(report)


def test_weight_norm_is_multiplied_out_or_kept_as_the_network_wants():
    graph, changes = molecule(4), {"injection": "add"}
    normed = network(**changes, weight_norm=True)
    pairs = to_original(normed, dialect="fork")
    plain = network(seed=1, **changes)
    report = load_original(plain, pairs)
    assert "blocks.0.ffn.grid_mlp.0.weight" in report.merged and not report.split
    again = network(seed=2, **changes, weight_norm=True)
    back = load_original(again, to_original(plain, dialect="fork"))
    assert set(back.split) == set(report.merged) and not back.merged
    context = plain.encode(graph, graph.edge_vectors())
    u = plain.start(context)
    with torch.no_grad():
        for other in (normed, again):
            torch.testing.assert_close(
                other.step(u, u, other.encode(graph, graph.edge_vectors())),
                plain.step(u, u, context),
            )
    del pairs["blocks.0.ffn.grid_mlp.0.weight_v"]
    with pytest.raises(ValueError, match="weight_g needs .*weight_v beside it"):
        load_original(plain, pairs)


def spoiled(change):
    state = to_original(network())
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("blocks.0.ga.alpha_dot"),
            r"missing: blocks.0.ga.alpha_dot \(our blocks.0.attention.score\)",
        ),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown: extra"),
        (
            lambda s: s.update({"blocks.0.ga.alphadot": s.pop("blocks.0.ga.alpha_dot")}),
            r"unknown: blocks.0.ga.alphadot \(did you mean blocks.0.ga.alpha_dot\?\)",
        ),
        (
            lambda s: s.update({"norm.affine_weight": torch.zeros(3, 4)}),
            r"norm.affine_weight: \(3, 4\), expected \(2, 4\)",
        ),
        (
            lambda s: s.update({"distance_expansion.offset": torch.linspace(0, 5, 24)}),
            "weights belong to 24 Gaussians up to 5 Å, received .* gaussians=24, cutoff=4",
        ),
        (
            lambda s: s.update({"SO3_grid.2.2.to_grid_mat": torch.zeros(14, 14, 9)}),
            r"weights belong to a grid of \(14, 14\) points, received .* \(grid=8\)",
        ),
        (lambda s: s.update(epoch=3), r"state must map names to tensors, received \['epoch'\]"),
        (lambda s: s.clear(), "state must map names to tensors, received nothing"),
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_is_loaded(change, message):
    made = network(seed=1)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_original(made, spoiled(change))
    assert equal(before, made.state_dict())


def test_a_whole_checkpoint_is_told_from_its_weights():
    with pytest.raises(ValueError, match='pass its entry "state_dict"'):
        load_original(network(), {"state_dict": {}, "epoch": 3})


def test_files(tmp_path):
    made, other = network(), network(seed=1)
    state = to_original(made)
    save_file(state, tmp_path / "weights.safetensors")
    np.savez(tmp_path / "weights.npz", **{name: value.numpy() for name, value in state.items()})
    for name in ("weights.safetensors", "weights.npz"):
        assert equal(read_state(tmp_path / name), state)
        load_original(other, tmp_path / name)
        assert equal(other.state_dict(), made.state_dict())
    with pytest.raises(ValueError, match=r"torch.load\(path, weights_only=True\)"):
        load_original(made, tmp_path / "weights.pt")
