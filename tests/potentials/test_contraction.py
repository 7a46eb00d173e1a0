"""The contraction of a potential is the rate at which plain passes converge."""

from dataclasses import replace

import torch

from equipoise.deq import Anderson
from equipoise.graph import batch
from tests.potentials.structures import molecule, potential


def test_contraction_is_the_rate_of_plain_iteration_structure_by_structure():
    model = potential()
    graphs = [molecule(seed=1), molecule(4, seed=2)]
    found = model.contraction(batch(graphs))
    for graph, rho in zip(graphs, found, strict=True):
        # With a window of one, Anderson is plain iteration.
        model.config = replace(
            model.config, solver=Anderson(tolerance=1e-13, max_passes=200, window=1)
        )
        residuals = model(graph).equilibrium.residuals[:, 0]
        # Far enough that the slowest mode has taken over, a complex pair averaged out.
        observed = (residuals[28] / residuals[8]) ** (1 / 20)
        assert 0 < rho < 1
        assert abs(observed / rho - 1) < 0.1
        torch.testing.assert_close(model.contraction(graph)[0], rho, rtol=0.1, atol=0)


def test_an_explicit_network_has_none():
    assert potential("stacked").contraction(molecule()) is None
