"""What every backbone inherits: the contract, and the symmetries of one pass."""

import pytest
import torch

from equipoise.backbones import Backbone
from equipoise.graph import Graph, batch
from tests.potentials.structures import crystal, molecule

TURN = torch.nn.functional.normalize(
    torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64), dim=0
)


def rotate(vectors, quaternion):
    """R(q) v for each row."""
    w, axis = quaternion[0], quaternion[1:].expand_as(vectors)
    twice = 2 * torch.linalg.cross(axis, vectors)
    return vectors + w * twice + torch.linalg.cross(axis, twice)


class BackboneTests:
    """Give a fixture ``backbone`` (float64) and inherit."""

    @pytest.fixture
    def backbone(self) -> Backbone:
        raise NotImplementedError

    @pytest.fixture
    def graph(self) -> Graph:
        return batch([molecule(5), crystal(), molecule(1)])

    def test_context_is_a_flat_record_of_tensors(self, backbone, graph):
        context = backbone.encode(graph, graph.edge_vectors())
        assert all(isinstance(value, torch.Tensor) for value in context)

    def test_update_keeps_shape_and_dtype(self, backbone, graph):
        context = backbone.encode(graph, graph.edge_vectors())
        z = backbone.start(context)
        assert z.shape[1:] == backbone.space.shape
        assert len(z) == (graph.n_atoms if backbone.site == "node" else graph.n_edges)
        assert backbone.update(z, context).shape == z.shape
        assert backbone.update(z, context).dtype == torch.float64
        assert len(backbone.readout(z, context)) == graph.n_atoms

    def test_a_pass_commutes_with_rotation(self, backbone, graph):
        vectors, act = graph.edge_vectors(), backbone.space.act
        context, turned = (
            backbone.encode(graph, vectors),
            backbone.encode(graph, rotate(vectors, TURN)),
        )
        start = backbone.start(context)
        torch.testing.assert_close(backbone.start(turned), act(start, TURN), rtol=0, atol=1e-12)
        z = start + torch.randn_like(start)
        moved = backbone.update(act(z, TURN), turned)
        torch.testing.assert_close(
            moved, act(backbone.update(z, context), TURN), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(
            backbone.readout(moved, turned),
            backbone.readout(backbone.update(z, context), context),
            rtol=0,
            atol=1e-12,
        )

    def test_a_pass_sees_neighbours_and_no_one_else(self, backbone, graph):
        context = backbone.encode(graph, graph.edge_vectors())
        z = backbone.start(context)
        changed = z.clone()
        changed[0] += 1.0
        touched = (backbone.update(changed, context) - backbone.update(z, context)).flatten(
            1
        ).abs().amax(1) > 0
        near = set(graph.receivers[graph.senders == 0].tolist()) | {0}
        assert set(touched.nonzero().flatten().tolist()) == near

    def test_geometry_can_be_differentiated_twice(self, backbone):
        graph = molecule(3)
        vectors = graph.edge_vectors().requires_grad_()

        def features(vectors):
            context = backbone.encode(graph, vectors)
            return backbone.readout(backbone.update(backbone.start(context), context), context)[
                :, :2
            ]

        assert torch.autograd.gradcheck(features, (vectors,))
        assert torch.autograd.gradgradcheck(features, (vectors,))
