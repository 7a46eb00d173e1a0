"""What a potential has to know about each kind of backbone, in one place: add one here, and it can be trained and saved."""

import abc
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from equipoise.backbones import Backbone, EquiformerV2, EquiformerV2Config, EquiformerV2Original
from equipoise.backbones.equiformer_v2_original import EquiformerV2OriginalConfig
from equipoise.potentials.heads import EnergyHead
from equipoise.potentials.injection import BATCH_GLOBAL, InjectionConfig


class Family(abc.ABC):
    """The stateless go-between of potentials and one class of backbones.

    Class attributes:
      name: in recipes and files, ``backbone: {name: ...}``.
      config: the class of its settings.
    """

    name: str
    config: type

    @abc.abstractmethod
    def check(self, backbone: Any, *, kind: str, injection: InjectionConfig, forces: str) -> None:
        """Refuse, with a ``ValueError``, settings that go together for no potential."""

    @abc.abstractmethod
    def build(
        self,
        backbone: Any,
        *,
        kind: str,
        injection: InjectionConfig,
        elements: tuple[int, ...],
        mean_neighbours: float,
    ) -> Backbone:
        """The network."""

    def head(self, backbone: Any) -> nn.Module | None:
        """What makes energies of features; None for a backbone that brings its own."""
        return EnergyHead(backbone.channels)

    def channels(self, backbone: Any, injection: InjectionConfig) -> int:
        """Channels that ``update`` takes."""
        return backbone.channels

    def mix(
        self, backbone: Backbone, z: Tensor, source: Tensor, context: tuple[Tensor, ...]
    ) -> Tensor:
        """State and source as one input of ``update``."""
        return z + source

    def energies(
        self, backbone: Backbone, head: nn.Module | None, z: Tensor, context: tuple[Tensor, ...]
    ) -> Tensor:
        """[atoms], dimensionless."""
        return head(backbone.readout(z, context))

    def direct_forces(self, backbone: Backbone, z: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        """[atoms, 3], dimensionless, from a head; only where ``check`` let ``forces="direct"`` pass."""
        raise NotImplementedError


class EquiformerV2Family(Family):
    """The smooth one."""

    name, config = "equiformer_v2", EquiformerV2Config

    def check(self, backbone, *, kind, injection, forces):
        if forces != "gradient":
            raise ValueError(
                f"forces must be 'gradient' with the backbone {self.name}, received {forces!r}; only equiformer_v2_original has a "
                "force head"
            )
        if kind == "equilibrium" and backbone.norm != "post":
            raise ValueError(
                "an equilibrium potential needs backbone.norm='post': with 'pre' the state grows at every pass and there is "
                f"no fixed point; received {backbone.norm!r}"
            )
        if kind == "equilibrium" and (injection.kind != "add" or not injection.local):
            raise ValueError(
                f"the backbone {self.name} takes injection.kind 'add' with norm 'per_atom' or 'none', received "
                f"{injection.kind!r} and {injection.norm!r}; the others belong to equiformer_v2_original"
            )

    def build(self, backbone, *, kind, injection, elements, mean_neighbours):
        return EquiformerV2(backbone, elements=elements, mean_neighbours=mean_neighbours)


class OriginalFamily(Family):
    """The published one, with its own heads and the injections of the DEQ research code."""

    name, config = "equiformer_v2_original", EquiformerV2OriginalConfig

    def check(self, backbone, *, kind, injection, forces):
        if forces == "direct" and not backbone.force_head:
            raise ValueError("forces='direct' needs backbone.force_head=true, received false")
        for name in ("injection", "injection_norm"):
            if getattr(backbone, name) is not None:
                raise ValueError(
                    f"backbone.{name} must be left out of a potential, which says it in injection.kind and injection.norm; "
                    f"received {getattr(backbone, name)!r}"
                )
        if kind != "equilibrium":
            return
        for name in ("alpha_drop", "path_drop", "projection_drop"):
            if getattr(backbone, name):
                raise ValueError(
                    f"backbone.{name} must be 0 in an equilibrium potential, received {getattr(backbone, name)}: it draws a new "
                    "mask at every pass, and a map that changes has no fixed point"
                )
        bounded = backbone.placement != "pre" or backbone.norm_block_end
        if injection.norm == "none" and not bounded:
            raise ValueError(
                "injection.norm='none' needs blocks that end with a norm: with backbone.placement='pre' the state grows at every "
                "pass and there is no fixed point (a relative residual falls all the same); use injection.norm='per_atom', or "
                "placement='post' or 'pp', or norm_block_end=true"
            )

    def build(self, backbone, *, kind, injection, elements, mean_neighbours):
        if max(elements) >= backbone.elements:
            raise ValueError(
                f"backbone.elements must be > {max(elements)}, the highest atomic number of the training set, received "
                f"{backbone.elements}"
            )
        if kind == "equilibrium":
            norm = BATCH_GLOBAL.get(injection.norm)
            backbone = replace(backbone, injection=injection.kind, injection_norm=norm)
        return EquiformerV2Original(backbone)

    def head(self, backbone):
        return None if backbone.energy_head else super().head(backbone)

    def channels(self, backbone, injection):
        return 2 * backbone.channels if injection.kind == "cat" else backbone.channels

    def mix(self, backbone, z, source, context):
        return backbone.injection(z, source, structures=len(context.atoms))

    def energies(self, backbone, head, z, context):
        if head is not None:
            return super().energies(backbone, head, z, context)
        return backbone.atomic_energies(z) / backbone.config.average_atoms

    def direct_forces(self, backbone, z, context):
        return backbone.direct_forces(z, context)


FAMILIES: dict[str, Family] = {
    family.name: family for family in (EquiformerV2Family(), OriginalFamily())
}


def family_of(backbone: Any) -> Family:
    """The family that a backbone's settings belong to.

    Raises:
      ValueError: for settings of no backbone.
    """
    for family in FAMILIES.values():
        if isinstance(backbone, family.config):
            return family
    raise ValueError(
        f"backbone must be the settings of one of {', '.join(FAMILIES)}, received {type(backbone).__name__}"
    )
