"""Settings of the original EquiformerV2."""

from dataclasses import dataclass

# Average over OC20; the original divides by these whatever it is trained on.
OC20_ATOMS, OC20_DEGREE = 77.81317, 23.395238876342773
# Average over QM9, which the DEQ research code uses for MD17 and MD22.
QM9_ATOMS, QM9_DEGREE = 18.03065905448718, 15.57930850982666

_CHOICES = {
    "attention_activation": ("separable_s2", "s2", "gate"),
    "ffn_activation": ("separable_grid_mlp", "grid_mlp", "separable_s2", "s2", "gate"),
    "edge_elements": ("block", "shared", "none"),
    "norm": ("layer_norm_sh", "layer_norm", "rms_norm_sh"),
    "norm_scale": ("component", "norm"),
    "placement": ("pre", "post", "pp"),
    "initialisation": ("uniform", "normal"),
    "injection": (None, "add", "cat", "lc", "swlc", "cwlc"),
    "injection_norm": (None, "prev", "one"),
}


@dataclass(frozen=True)
class EquiformerV2OriginalConfig:
    """Everything that the original can be told, under names of this library.

    Attributes:
      channels: multiplicity of each degree in the state (``sphere_channels``).
      lmax, mmax: highest degree of the state, and highest order kept in messages (``lmax_list[0]``, ``mmax_list[0]``).
      layers: blocks in one ``update`` (``num_layers``).
      heads: attention heads (``num_heads``).
      hidden: channels of a message (``attn_hidden_channels``).
      alpha_channels: channels per head that attention weights are made of (``attn_alpha_channels``).
      value_channels: channels per head of the values (``attn_value_channels``).
      ffn: channels inside the feed-forward network (``ffn_hidden_channels``).
      edge_channels: width of the radial networks and of element embeddings on edges (``edge_channels``).
      grid: polar angles and longitudes of the grid on the sphere; None: as few as represent the coefficients
        (``grid_resolution``).
      cutoff: Å (``max_radius``).
      max_neighbours: edges kept per receiver, nearest first; None: all. A cap makes the energy jump whenever two atoms
        exchange ranks.
      gaussians: radial functions; the original always takes 600.
      elements: rows of the element tables, > highest atomic number (``max_num_elements``).
      attention_activation: non-linearity of messages. "separable_s2": a SiLU sampled on the sphere for l > 0, an invariant one
        for l = 0. "s2": the sampled SiLU alone. "gate": exact. (``use_sep_s2_act``, ``use_gate_act``; ``use_s2_act_attn``, which
        the original announces and then refuses, is refused here as well.)
      ffn_activation: non-linearity of the feed-forward network. "grid_mlp": a small network at each point of the sphere;
        "separable_grid_mlp": the same with an invariant network for l = 0 (``use_grid_mlp``, ``use_sep_s2_act``,
        ``use_gate_act``).
      renormalise: LayerNorm of the attention features (``use_attn_renorm``).
      share_m_radial: radial weights that are equal for all m, applied before the first convolution (``use_m_share_rad``).
      edge_elements: element embeddings on edges: one per "block", "shared" by all, or "none"
        (``use_atom_edge_embedding``, ``share_atom_edge_embedding``).
      norm: kind of normalisation (``norm_type``; in the DEQ code ``ln_type``).
      norm_scale: mean ("component") or sum ("norm") over m in the norms of blocks (``ln_norm``). The final norm always takes
        the mean.
      norm_affine: learned weights in the norms of blocks (``ln_affine``).
      placement: "pre", "post" or both ("pp", in which the first norm is used twice) (``ln``).
      norm_block_end: one more norm after each block (``final_ln``).
      norm_start: a norm after the embedding (``enc_ln``).
      energy_head, force_head: which heads exist. Forces of the head are *not* derivatives of the energy.
      alpha_drop, path_drop, projection_drop, head_alpha_drop: rates of dropout of attention weights, of the branches of a
        structure, of channels of an atom after a branch, and of attention weights in the force head.
      average_atoms, average_degree: constants that energies and edge-degree embeddings are divided by.
      initialisation: "uniform" or "normal" (``weight_init``).
      weight_norm: keep linear maps of the blocks, those of degrees excepted, as length and direction of each row
        (``torchdeq_norm``). The maps are the same, their optimisation differs. They are multiplied out at every pass; use
        ``torch.nn.utils.parametrize.cached()`` around a solve.
      injection, injection_norm: how the embedding enters an implicit layer (``inp_inj``, ``inj_norm``); see
        :mod:`equipoise.backbones.equiformer_v2_original.injection`. None: an explicit stack.

    Raises:
      ValueError: for a setting out of its range.
    """

    channels: int = 128
    lmax: int = 6
    mmax: int = 2
    layers: int = 12
    heads: int = 8
    hidden: int = 64
    alpha_channels: int = 64
    value_channels: int = 16
    ffn: int = 128
    edge_channels: int = 128
    grid: int | None = 18
    cutoff: float = 12.0
    max_neighbours: int | None = None
    gaussians: int = 600
    elements: int = 90
    attention_activation: str = "separable_s2"
    ffn_activation: str = "separable_grid_mlp"
    renormalise: bool = True
    share_m_radial: bool = False
    edge_elements: str = "block"
    norm: str = "layer_norm_sh"
    norm_scale: str = "component"
    norm_affine: bool = True
    placement: str = "pre"
    norm_block_end: bool = False
    norm_start: bool = False
    energy_head: bool = True
    force_head: bool = True
    alpha_drop: float = 0.0
    path_drop: float = 0.0
    projection_drop: float = 0.0
    head_alpha_drop: float = 0.0
    average_atoms: float = OC20_ATOMS
    average_degree: float = OC20_DEGREE
    initialisation: str = "uniform"
    weight_norm: bool = False
    injection: str | None = None
    injection_norm: str | None = None

    def __post_init__(self):
        counts = ("channels", "layers", "heads", "hidden", "alpha_channels", "value_channels")
        for name in (*counts, "ffn", "edge_channels", "elements"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, received {getattr(self, name)}")
        if self.gaussians < 2:
            raise ValueError(f"gaussians must be >= 2, received {self.gaussians}")
        if not 1 <= self.lmax <= 10:
            raise ValueError(f"lmax must lie between 1 and 10, received {self.lmax}")
        if not 0 <= self.mmax <= self.lmax:
            raise ValueError(f"mmax must lie between 0 and lmax={self.lmax}, received {self.mmax}")
        if self.grid is not None and (self.grid < 2 or self.grid % 2):
            raise ValueError(f"grid must be even and >= 2, or None, received {self.grid}")
        if self.max_neighbours is not None and self.max_neighbours < 1:
            raise ValueError(f"max_neighbours must be >= 1 or None, received {self.max_neighbours}")
        for name in ("cutoff", "average_atoms", "average_degree"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, received {getattr(self, name)}")
        for name in ("alpha_drop", "path_drop", "projection_drop", "head_alpha_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), received {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {choices}, received {getattr(self, name)!r}"
                )
        if self.injection is None and self.injection_norm is not None:
            raise ValueError(
                f"injection_norm must be None without an injection, received {self.injection_norm!r}; set injection too"
            )
