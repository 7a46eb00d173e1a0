"""How a structure enters the fixed-point map."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant import EquivariantNorm, SphericalSpace

# Of the whole batch, as the DEQ research code takes them; ours -> theirs.
BATCH_GLOBAL = {"batch_global_prev": "prev", "batch_global_one": "one"}
_CHOICES = {
    "kind": ("add", "cat", "lc", "swlc", "cwlc"),
    "norm": ("per_atom", "none", *BATCH_GLOBAL),
    "start": ("zero", "embedding", "normal"),
}


@dataclass(frozen=True)
class InjectionConfig:
    """How the embedding u of a structure enters the map z ↦ update(norm(inject(z, u))), and where a solve begins.

    All but the defaults are for comparison with the DEQ research code, and for its weights; see
    :class:`equipoise.backbones.equiformer_v2_original.OriginalInjection`.

    Attributes:
      kind: "add": z + u. With the backbone equiformer_v2_original also "cat": side by side, 2C channels into the first block;
        "lc", "swlc": w₁ z + w₂ u with learned numbers, two in all or two per channel; "cwlc": two per component and channel,
        which does *not* commute with rotation.
      norm: of what comes out. "per_atom": bounds the state of each atom by itself, so that a fixed point exists, and no atom
        feels another here. "none": for blocks that end with a norm. "batch_global_prev", "batch_global_one": compatibility with
        the research code, whose norms ‖u‖ / ‖z‖ and 1 / ‖z‖ run over everything in the batch: an atom feels every other one
        however far, energies are not extensive; one structure at a time, and no molecular dynamics.
      start: first guess for the state: "zero"; "embedding", u; "normal", random numbers, always the same ones in prediction. The
        fixed point does not depend on it, within the tolerance.
      start_mean, start_std: of "normal".
    """

    kind: str = "add"
    norm: str = "per_atom"
    start: str = "zero"
    start_mean: float = 0.0
    start_std: float = 1.0

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                hint = (
                    f"; batch_global_{self.norm} is what the research code calls so"
                    if name == "norm" and self.norm in BATCH_GLOBAL.values()
                    else ""
                )
                raise ValueError(
                    f"injection.{name} must be one of {', '.join(choices)}, received {getattr(self, name)!r}{hint}"
                )
        if not (math.isfinite(self.start_mean) and 0 <= self.start_std < math.inf):
            raise ValueError(
                "injection.start_mean and start_std must be finite and start_std >= 0, received "
                f"{self.start_mean} and {self.start_std}"
            )

    @property
    def local(self) -> bool:
        """Whether what happens at an atom depends on that atom alone."""
        return self.norm not in BATCH_GLOBAL


class Injection(nn.Module):
    """The norms around the mixing of z and u: what "per_atom" says, or nothing.

    z ↦ norm(inject(z, norm(u))), one atom at a time. The state is bounded however often the map is applied, so a fixed point
    exists; and no atom feels another here, so a far molecule stays far and a batch stays a list. (Dividing by the norm of the
    whole batch, as the DEQ research code does, makes the energy of a molecule depend on what it was batched with. That division
    is no part of this class but of the backbone that is compatible with it.)

    Args:
      config: settings.
      space: of the state.
      channels: channels after mixing.
    """

    def __init__(self, config: InjectionConfig, space: SphericalSpace, channels: int):
        super().__init__()
        self.config = config
        self.norm_source = self.norm_sum = None
        if config.norm == "per_atom":
            self.norm_source = EquivariantNorm(space.lmax, space.channels)
            # Start with the structure louder than the state: ‖∂(z + u)/|z + u|‖ ~ 1/(1 + 2), a contraction to begin with.
            nn.init.constant_(self.norm_source.weight, 2.0)
            self.norm_sum = EquivariantNorm(space.lmax, channels)

    def source(self, u: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        """The part that does not depend on z: once per structure."""
        return u if self.norm_source is None else self.norm_source(u)

    def forward(self, mixed: Float[Tensor, "rows K D"]) -> Float[Tensor, "rows K D"]:
        """Bound what z and the source were mixed to."""
        return mixed if self.norm_sum is None else self.norm_sum(mixed)

    def start(self, source: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        """The first guess."""
        config = self.config
        if config.start == "embedding":
            return source
        if config.start == "zero":
            return torch.zeros_like(source)
        # Training has seeded torch's generator for this step; a prediction must be the same every time.
        generator = None if self.training else torch.Generator("cpu").manual_seed(0)
        noise = torch.randn(source.shape, generator=generator, dtype=torch.float64, device="cpu")
        return (config.start_mean + config.start_std * noise).to(source)
