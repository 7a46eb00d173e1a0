"""How the embedding u of a structure enters the implicit layer of the DEQ research code: z ↦ inject(z, u), then the blocks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class OriginalInjection(nn.Module):
    """For loading weights of the research code and for comparison. Use ``equipoise.potentials.injection.Injection``.

    Kinds:
      "add": z + u;  "cat": z and u side by side, 2C channels;  "lc": w₁ z + w₂ u with two numbers;  "swlc": the same with
      numbers per channel;  "cwlc": per component and channel, which does *not* commute with rotation.

    Norms after it:
      None;  "prev": z · ‖u‖ / ‖z‖;  "one": z / ‖z‖. Both norms are taken over *everything that is in the batch*: an atom feels
      every other one however far, energies are not extensive, and a molecule's prediction would depend on what it is batched
      with. So more than one structure at a time is refused, and :attr:`local` is False, for engines to refuse it too.

    Source: Burger et al., DEQuify your force field (2025), arXiv:2509.08734, and its research code.

    Args:
      kind, norm: as above.
      components, channels: shape of a row of the state.
    """

    def __init__(self, kind: str, norm: str | None, *, components: int, channels: int):
        super().__init__()
        self.kind, self.norm = kind, norm
        shape = {"lc": (1,), "swlc": (1, 1, channels), "cwlc": (1, components, channels)}.get(kind)
        self.state_weight = None if shape is None else nn.Parameter(torch.ones(shape))
        self.source_weight = None if shape is None else nn.Parameter(torch.ones(shape))

    @property
    def local(self) -> bool:
        """Whether the result at an atom depends on that atom alone."""
        return self.norm is None

    @property
    def equivariant(self) -> bool:
        """Whether it commutes with rotation."""
        return self.kind != "cwlc"

    def forward(
        self,
        z: Float[Tensor, "atoms K C"],
        source: Float[Tensor, "atoms K C"],
        *,
        structures: int = 1,
    ) -> Float[Tensor, "atoms K D"]:
        """Inject ``source`` (u) into z; D = 2C for "cat", else C.

        Raises:
          ValueError: for a norm over the batch and more than one structure.
        """
        if self.norm is not None and structures > 1:
            raise ValueError(
                f"injection_norm={self.norm!r} mixes all structures of a batch, so it takes one structure at a time, received "
                f"{structures}; evaluate them one by one"
            )
        if self.kind == "cat":
            z = torch.cat([z, source], dim=2)
        elif self.state_weight is not None and self.source_weight is not None:
            z = self.state_weight * z + self.source_weight * source
        else:
            z = z + source
        if self.norm is None:
            return z
        size = torch.linalg.vector_norm(z)
        return z / size if self.norm == "one" else z / (size / torch.linalg.vector_norm(source))
