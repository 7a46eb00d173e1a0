"""Settings of the EquiformerV2 backbone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EquiformerV2Config:
    """Size and geometry of the network.

    Attributes:
      channels: multiplicity of each degree in the state.
      lmax: highest degree of the state.
      mmax: highest order kept in messages, <= lmax.
      heads: attention heads.
      hidden: channels of a message (multiple of heads).
      ffn: channels inside the node-wise product on the sphere.
      layers: blocks in one ``update``.
      cutoff: Å.
      radial: number of radial functions.
      radial_hidden: width of the radial network.
      reflection: True: mirror images have equal energies (O(3)). False: more general messages, SO(3) only.
      norm: "post" bounds the state (needed for a fixed point), "pre" is the usual choice for an explicit stack.
    """

    channels: int = 64
    lmax: int = 2
    mmax: int = 2
    heads: int = 4
    hidden: int = 64
    ffn: int = 64
    layers: int = 1
    cutoff: float = 5.0
    radial: int = 8
    radial_hidden: int = 64
    reflection: bool = True
    norm: str = "post"

    def __post_init__(self):
        for name in ("channels", "heads", "hidden", "ffn", "layers", "radial", "radial_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, received {getattr(self, name)}")
        if not 1 <= self.lmax <= 10:
            raise ValueError(f"lmax must lie between 1 and 10, received {self.lmax}")
        if not 0 <= self.mmax <= self.lmax:
            raise ValueError(f"mmax must lie between 0 and lmax={self.lmax}, received {self.mmax}")
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden must be a multiple of heads={self.heads}, received {self.hidden}"
            )
        if self.hidden == self.heads:
            # The layer norm over one scalar leaves nothing of it, and attention would be blind.
            raise ValueError(
                f"hidden must be at least twice heads={self.heads}, received {self.hidden}"
            )
        if not self.cutoff > 0:
            raise ValueError(f"cutoff must be > 0 Å, received {self.cutoff}")
        if self.norm not in ("pre", "post"):
            raise ValueError(f"norm must be 'pre' or 'post', received {self.norm!r}")
