import e3nn.o3
import pytest
import torch

from equipoise.equivariant import Wigner, edge_quaternion, edge_rows, spherical_harmonics

AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def random_unit(rows, dtype=torch.float64):
    return torch.nn.functional.normalize(torch.randn(rows, 3, dtype=dtype), dim=-1)


@pytest.mark.parametrize("lmax", [0, 1, 3, 6, 8])
def test_spherical_harmonics_equal_e3nn(lmax):
    unit = random_unit(40)
    oracle = e3nn.o3.spherical_harmonics(
        list(range(lmax + 1)), unit, normalize=False, normalization="component"
    )
    torch.testing.assert_close(spherical_harmonics(unit, lmax), oracle, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lmax", [1, 3, 6])
def test_wigner_rotates_spherical_harmonics(lmax):
    quaternion = torch.nn.functional.normalize(torch.randn(30, 4, dtype=torch.float64), dim=-1)
    rotation = e3nn.o3.quaternion_to_matrix(quaternion)
    unit = random_unit(30)
    rotated = spherical_harmonics(torch.einsum("eij,ej->ei", rotation, unit), lmax)
    columns = [degree**2 + degree + m for degree, m in edge_rows(lmax, lmax)]
    ours = torch.einsum("emk,ek->em", Wigner(lmax)(quaternion), spherical_harmonics(unit, lmax))
    torch.testing.assert_close(ours, rotated[:, columns], rtol=0, atol=1e-11)


def test_wigner_is_orthogonal_and_a_homomorphism():
    wigner = Wigner(4)
    a, b = torch.nn.functional.normalize(torch.randn(2, 7, 4, dtype=torch.float64), dim=-1)
    order = torch.tensor([degree**2 + degree + m for degree, m in edge_rows(4, 4)])
    product = e3nn.o3.compose_quaternion(a, b)
    left, right = wigner(a)[:, order.argsort()], wigner(b)[:, order.argsort()]
    torch.testing.assert_close(
        wigner(product)[:, order.argsort()], left @ right, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(left @ left.mT, torch.eye(25, dtype=torch.float64).expand(7, -1, -1))


@pytest.mark.parametrize("lmax", [1, 3, 6])
def test_edge_frame_leaves_only_the_axial_part(lmax):
    unit = torch.cat([AXES, random_unit(200)])
    frame = Wigner(lmax)(edge_quaternion(unit))
    aligned = torch.einsum("emk,ek->em", frame, spherical_harmonics(unit, lmax))
    expected = torch.zeros_like(aligned)
    expected[:, : lmax + 1] = (2 * torch.arange(lmax + 1, dtype=torch.float64) + 1).sqrt()
    torch.testing.assert_close(aligned, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e-4])
def test_derivatives_are_finite_and_right_near_every_axis(offset):
    directions = AXES + offset * torch.randn(6, 3, dtype=torch.float64)
    # n_y = 0 is where the chart changes: finite differences across it compare different rolls, so look at an invariant.
    directions.requires_grad_()
    wigner, features = Wigner(3), torch.randn(6, 16, 2, dtype=torch.float64)

    def power_per_order(vectors):
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        return (wigner(edge_quaternion(unit)) @ features)[:, :4]

    assert torch.autograd.gradcheck(power_per_order, (directions,))
    assert torch.autograd.gradgradcheck(power_per_order, (directions,))


def test_float32_blocks_are_accurate_to_degree_six():
    unit = random_unit(500)
    exact = Wigner(6)(edge_quaternion(unit))
    single = Wigner(6)(edge_quaternion(unit.float()))
    assert (single - exact).abs().max() < 2e-5


def test_order_above_degree_is_refused():
    with pytest.raises(ValueError, match="mmax must lie between 0 and lmax=2, received 3"):
        Wigner(2, 3)
