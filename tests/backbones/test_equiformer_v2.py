from dataclasses import replace

import pytest
import torch

from equipoise.backbones import EquiformerV2
from equipoise.backbones.cutoff import Bessel, envelope
from tests.backbones.backbone_tests import BackboneTests
from tests.potentials.structures import ELEMENTS, SMALL


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
