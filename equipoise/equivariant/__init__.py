"""Tensor operations that commute with rotation. Components follow e3nn: polar axis y, degree 1 = (x, y, z)."""

from equipoise.equivariant.gate import edge_gate as edge_gate
from equipoise.equivariant.layout import degrees as degrees
from equipoise.equivariant.layout import edge_rows as edge_rows
from equipoise.equivariant.layout import split_orders as split_orders
from equipoise.equivariant.norm import EquivariantNorm as EquivariantNorm
from equipoise.equivariant.so2_linear import SO2Linear as SO2Linear
from equipoise.equivariant.so3_linear import SO3Linear as SO3Linear
from equipoise.equivariant.space import SphericalSpace as SphericalSpace
from equipoise.equivariant.sphere import SphereActivation as SphereActivation
from equipoise.equivariant.sphere import SphereProduct as SphereProduct
from equipoise.equivariant.sphere import equiangular_grid as equiangular_grid
from equipoise.equivariant.sphere import quadrature as quadrature
from equipoise.equivariant.spherical_harmonics import spherical_harmonics as spherical_harmonics
from equipoise.equivariant.wigner import Wigner as Wigner
from equipoise.equivariant.wigner import edge_quaternion as edge_quaternion
