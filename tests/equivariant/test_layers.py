import math

import e3nn.o3
import pytest
import torch

from equipoise.equivariant import (
    EquivariantNorm,
    SO2Linear,
    SO3Linear,
    SphereActivation,
    SphereProduct,
    SphericalSpace,
    degrees,
    edge_gate,
    edge_rows,
    equiangular_grid,
    quadrature,
    spherical_harmonics,
    split_orders,
)

F64 = torch.float64


def roll(lmax, mmax, angle):
    """The matrix of a turn about the edge, in edge-frame order."""
    rows = edge_rows(lmax, mmax)
    matrix = torch.zeros(len(rows), len(rows), dtype=F64)
    for i, (degree, m) in enumerate(rows):
        matrix[i, i] = math.cos(m * angle)
        if m:
            matrix[i, rows.index((degree, -m))] = math.sin(m * angle)
    return matrix


def mirror(lmax, mmax):
    """The mirror plane that contains the edge: sine parts change sign."""
    return torch.diag(
        torch.tensor([1.0 if m >= 0 else -1.0 for _, m in edge_rows(lmax, mmax)], dtype=F64)
    )


@pytest.mark.parametrize("reflection", [True, False])
@pytest.mark.parametrize(("lmax", "mmax"), [(1, 1), (3, 2), (4, 4), (2, 0)])
def test_so2_linear_commutes_with_rolls(lmax, mmax, reflection):
    layer = SO2Linear(lmax, mmax, 5, 3, extra_scalars=4, reflection=reflection).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(6, len(edge_rows(lmax, mmax)), 5, dtype=F64)
    turn = roll(lmax, mmax, 0.7)

    def apply(x):
        parts, extra = layer(split_orders(x, lmax, mmax))
        return torch.cat(parts, dim=1), extra

    y, extra = apply(x)
    turned, same = apply(turn @ x)
    torch.testing.assert_close(turned, turn @ y, rtol=0, atol=1e-12)
    torch.testing.assert_close(same, extra, rtol=0, atol=1e-12)
    flip = mirror(lmax, mmax)
    commutes = torch.allclose(apply(flip @ x)[0], flip @ y, atol=1e-12)
    assert commutes == (reflection or mmax == 0)


def test_gate_commutes_with_rolls():
    x, gate = torch.randn(6, len(edge_rows(3, 2)), 5, dtype=F64), torch.randn(6, 5, dtype=F64)
    turn = roll(3, 2, 1.1)

    def apply(x):
        return torch.cat(edge_gate(split_orders(x, 3, 2), gate), dim=1)

    torch.testing.assert_close(apply(turn @ x), turn @ apply(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [SO3Linear(3, 4, 4), EquivariantNorm(3, 4)])
def test_node_layers_commute_with_rotation(layer):
    layer = layer.double()
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(layer.weight)
    space = SphericalSpace(3, 4)
    z = torch.randn(5, *space.shape, dtype=F64)
    turn = torch.nn.functional.normalize(torch.randn(4, dtype=F64), dim=0)
    torch.testing.assert_close(
        layer(space.act(z, turn)), space.act(layer(z), turn), rtol=0, atol=1e-12
    )


def test_norm_sees_one_row_and_weighs_degrees_equally():
    norm, z = EquivariantNorm(2, 3, epsilon=1e-12).double(), torch.randn(4, 9, 3, dtype=F64)
    changed = z.clone()
    changed[1:] *= 5
    torch.testing.assert_close(norm(changed)[0], norm(z)[0])
    power = torch.stack([part.square().mean((1, 2)) for part in norm(z).split([1, 3, 5], dim=1)])
    torch.testing.assert_close(power.mean(0), torch.ones(4, dtype=F64))


def test_norm_does_not_amplify_what_vanishes_by_symmetry():
    """The gain of a degree that is zero is that of the others, not 1/√ε: else symmetric fixed points are unstable."""
    norm, z = EquivariantNorm(2, 3).double(), torch.zeros(1, 9, 3, dtype=F64)
    z[:, 0] = 1.0
    gain = torch.autograd.functional.jacobian(norm, z).abs().max()
    assert gain < 2


@pytest.mark.parametrize("lmax", [1, 2, 3, 4])
def test_sphere_product_is_exact(lmax):
    """Against a quadrature far larger than needed, and against rotation."""
    product, space = SphereProduct(lmax), SphericalSpace(lmax, 2)
    a, b = torch.randn(2, 3, *space.shape, dtype=F64)
    points, weights = quadrature(40, 40)
    values = spherical_harmonics(points, lmax)
    fine = torch.einsum("pk,p,pi,pj,nic,njc->nkc", values, weights, values, values, a, b)
    torch.testing.assert_close(product(a, b), fine, rtol=0, atol=1e-11)
    turn = torch.nn.functional.normalize(torch.randn(4, dtype=F64), dim=0)
    torch.testing.assert_close(
        product(space.act(a, turn), space.act(b, turn)),
        space.act(product(a, b), turn),
        rtol=0,
        atol=1e-11,
    )


def test_sphere_product_needs_only_fifty_points_at_degree_three():
    assert SphereProduct(3).to_grid.shape == (50, 16)


def test_equiangular_grid_equals_that_of_e3nn():
    to_grid = e3nn.o3.ToS2Grid(3, (14, 14), normalization="component", dtype=F64)
    from_grid = e3nn.o3.FromS2Grid((14, 14), 3, normalization="component", dtype=F64)
    points, weights = equiangular_grid(14)
    x = torch.randn(2, 16, 3, dtype=F64)
    activation = SphereActivation(3, points, weights)
    # e3nn divides degree l by √((2l+1) (lmax+1)) on the way to the grid and multiplies on the way back.
    scale = torch.tensor([((2 * degree + 1) * 4) ** -0.5 for degree in degrees(3)], dtype=F64)[
        :, None
    ]
    values = to_grid(x.transpose(1, 2))
    expected = from_grid(torch.nn.functional.silu(values)).transpose(1, 2)
    torch.testing.assert_close(activation(x * scale) / scale, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="resolution must be even and >= 2, received 7"):
        equiangular_grid(7)


def test_sampled_activation_violates_what_the_product_keeps():
    space = SphericalSpace(3, 4)
    x, turn = (
        torch.randn(3, 16, 4, dtype=F64),
        torch.nn.functional.normalize(torch.randn(4, dtype=F64), dim=0),
    )

    def violation(layer):
        return (layer(space.act(x, turn)) - space.act(layer(x), turn)).abs().max().item()

    product = SphereProduct(3)
    assert violation(SphereActivation(3, *equiangular_grid(14))) > 1e-6
    assert violation(lambda x: product(x, x)) < 1e-12


def test_space_speaks_e3nn():
    space = SphericalSpace(2, 8)
    assert space.irreps == "8x0e+8x1o+8x2e"
    assert space.orthogonal
    with pytest.raises(ValueError, match="channels must be >= 1, received 0"):
        SphericalSpace(1, 0)


def test_vectors_rotate_like_vectors():
    space = SphericalSpace(1, 3)
    z = torch.randn(2, 4, 3, dtype=F64)
    quarter = torch.tensor(
        [math.sqrt(0.5), math.sqrt(0.5), 0, 0], dtype=F64
    )  # 90° about x: y → z, z → -y
    x, y, w = space.vectors(z).unbind(1)
    torch.testing.assert_close(space.vectors(space.act(z, quarter)), torch.stack([x, -w, y], 1))
