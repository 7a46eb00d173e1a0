from dataclasses import replace

import pytest
import torch

from equipoise.backbones import EquiformerV2
from equipoise.backbones.cutoff import Bessel, envelope
from equipoise.backbones.equiformer_v2.layer import Edges
from equipoise.equivariant import edge_rows
from equipoise.graph import batch
from tests.backbones.backbone_tests import BackboneTests
from tests.potentials.structures import ELEMENTS, SMALL, crystal, molecule, potential


def network(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EquiformerV2(
            replace(SMALL, channels=4, hidden=4, ffn=4, **changes),
            elements=ELEMENTS,
            mean_neighbours=8.0,
        ).double()


class TestEquiformerV2(BackboneTests):
    @pytest.fixture(
        params=[{}, {"reflection": False, "lmax": 3}, {"norm": "pre", "mmax": 1, "layers": 2}],
        ids=str,
    )
    def backbone(self, request):
        return network(**request.param)

    def test_a_pass_sees_neighbours_and_no_one_else(self, backbone, graph):
        if backbone.config.layers == 1:
            super().test_a_pass_sees_neighbours_and_no_one_else(backbone, graph)


def test_envelope_ends_with_two_vanishing_derivatives():
    distance = torch.tensor([4.0 - 1e-9, 4.0, 5.0], dtype=torch.float64, requires_grad=True)
    value = envelope(distance, 4.0)
    (slope,) = torch.autograd.grad(value.sum(), distance, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), distance)
    for quantity in (value, slope, curvature):
        assert quantity.abs().max() < 1e-7
    assert envelope(torch.zeros(1), 4.0).item() == 1.0


def test_bessel_functions_vanish_at_the_cutoff_and_are_orthogonal():
    bessel, distance = Bessel(5, 4.0), torch.linspace(1e-6, 4.0, 20001, dtype=torch.float64)
    values = bessel(distance)
    assert values[-1].abs().max() < 1e-12
    overlap = torch.trapezoid(
        values[:, :, None] * values[:, None, :] * distance[:, None, None] ** 2, distance, dim=0
    )
    off = overlap - torch.diag(overlap.diagonal())
    assert off.abs().max() < 1e-6 * overlap.diagonal().min()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmax": 0, "mmax": 0}, "lmax must lie between 1 and 10, received 0"),
        ({"mmax": 3}, "mmax must lie between 0 and lmax=2, received 3"),
        ({"cutoff": -1.0}, "cutoff must be > 0 Å, received -1.0"),
        ({"channels": 0}, "channels must be >= 1, received 0"),
        ({"norm": "batch"}, "norm must be 'pre' or 'post', received 'batch'"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("reflection", [True, False])
def test_chunks_and_recomputed_geometry_change_nothing(monkeypatch, reflection):
    """Large systems take the edges a thousand at a time, and their geometry anew at every pass."""
    model = potential(reflection=reflection, layers=2)
    graph = batch([molecule(6), molecule(5, seed=3)])
    whole = model(graph)
    monkeypatch.setattr("equipoise.backbones.edge_sum.CPU_CHUNK", 7)
    chunked = model(graph)
    monkeypatch.setattr("equipoise.backbones.equiformer_v2.network.MOST_STORED", 10)
    context = model.backbone.encode(graph, graph.edge_vectors())
    assert len(context.wigner) == 0 < graph.n_edges
    recomputed = model(graph)
    for other in (chunked, recomputed):
        torch.testing.assert_close(other.energy, whole.energy, rtol=0, atol=1e-9)
        torch.testing.assert_close(other.forces, whole.forces, rtol=0, atol=1e-9)
    cell = crystal()
    stressed = model(cell, stress=True).stress
    monkeypatch.undo()
    torch.testing.assert_close(stressed, model(cell, stress=True).stress, rtol=0, atol=1e-9)


def plain_messages(attention, z, radial, envelope, wigner, senders, receivers):
    """The formula of the docstring, word for word: SO(2) layers from their definition, one soft-max over all edges."""
    lmax, mmax = attention.degrees
    rows = edge_rows(lmax, mmax)
    kinds = sorted({(abs(m), degree) for degree, m in rows})
    expanded = radial[:, [kinds.index((abs(m), degree)) for degree, m in rows]]

    def so2(layer, x):
        out = layer.out_channels
        extra = x[:, : lmax + 1].flatten(1) @ layer.axial[:, : layer.extra_scalars]
        extra = extra + layer.bias[: layer.extra_scalars]
        y = torch.zeros(len(x), len(rows), out, dtype=x.dtype)
        for i, (degree, m) in enumerate(rows):
            same = [k for k, (_, other) in enumerate(rows) if other == m]
            opposite = [k for k, (_, other) in enumerate(rows) if other == -m]
            width, place = len(same), degree - abs(m)
            columns = slice(place * out, (place + 1) * out)
            if m == 0:
                weight = layer.axial[:, layer.extra_scalars :][:, columns]
                y[:, i] = x[:, same].flatten(1) @ weight
                if degree == 0:
                    y[:, i] += layer.bias[layer.extra_scalars :]
                continue
            weight = layer.orders[abs(m) - 1]
            y[:, i] = x[:, same].flatten(1) @ weight[:, columns]
            if not layer.reflection:
                shifted = slice(columns.start + width * out, columns.stop + width * out)
                turned = x[:, opposite].flatten(1) @ weight[:, shifted]
                y[:, i] += -turned if m > 0 else turned
        return y, extra

    source, target = attention.ends(z).chunk(2, dim=2)
    message = torch.einsum("emk,ekc->emc", wigner, source[senders] + target[receivers])
    message, extra = so2(attention.first, message * expanded)
    gate, features = extra.chunk(2, dim=1)
    message = torch.cat(
        [torch.nn.functional.silu(message[:, :1]), message[:, 1:] * gate.sigmoid()[:, None]], 1
    )
    message, _ = so2(attention.second, message)
    features = features.unflatten(1, (attention.heads, attention.width))
    features = attention.score_norm(features)
    features = 0.2 * features + 0.8 * features * features.sigmoid()
    weight = envelope[:, None] * (features * attention.score).sum(-1).exp()
    total = torch.ones(len(z), attention.heads, dtype=z.dtype).index_add(0, receivers, weight)
    weight = weight / total[receivers] * envelope[:, None]
    message = message * weight.repeat_interleave(attention.width, dim=1)[:, None]
    message = torch.einsum("emk,emc->ekc", wigner, message)
    return attention.out(torch.zeros_like(source).index_add(0, receivers, message))


@pytest.mark.parametrize("reflection", [True, False])
@pytest.mark.parametrize(("lmax", "mmax"), [(3, 2), (2, 2), (2, 0)])
def test_the_fast_messages_equal_the_plain_formula(lmax, mmax, reflection):
    model = potential(lmax=lmax, mmax=mmax, reflection=reflection)
    graph = batch([molecule(6), molecule(1)])
    backbone = model.backbone
    context = backbone.encode(graph, graph.edge_vectors())
    attention = backbone.blocks[0].attention
    torch.nn.init.normal_(attention.first.bias)
    torch.nn.init.normal_(attention.second.bias)
    z = torch.randn_like(backbone.start(context))
    edges = context.wigner, context.radial[0], context.envelope
    fast = attention(z, Edges(context.senders, context.receivers, edges))
    plain = plain_messages(
        attention,
        z,
        context.radial[0],
        context.envelope,
        context.wigner,
        context.senders,
        context.receivers,
    )
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
