"""What each weight is called here, in the original code ("upstream") and in the DEQ research code ("fork").

Rules are tried from the top and applied one after another to a name of ours; a rule with two spellings gives the upstream one
first. Shapes are equal but for :class:`equipoise.equivariant.SO3Linear`, which holds its matrices transposed.
"""

import re

from torch import Tensor, nn

from equipoise.backbones.equiformer_v2_original.attention import Attention
from equipoise.backbones.equiformer_v2_original.config import EquiformerV2OriginalConfig
from equipoise.backbones.equiformer_v2_original.network import EquiformerV2Original
from equipoise.equivariant import SO3Linear

DIALECTS = ("upstream", "fork")

# (pattern in our name, upstream spelling, fork spelling)
_RULES = (
    (r"\.parametrizations\.weight\.original0$", ".weight_g", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v", ".weight_v"),
    (r"^elements\.", "sphere_embedding.", "sphere_embedding."),
    (r"^degree\.", "edge_degree_embedding.radial.", "edge_degree_embedding.radial."),
    (r"^energy\.", "energy_block.", "energy_block."),
    (r"^force\.", "force_block.", "force_block."),
    (r"^injection\.state_weight$", "inj_w1", "inj_w1"),
    (r"^injection\.source_weight$", "inj_w2", "inj_w2"),
    (r"^norm_start\.", "norm_enc.", "norm_enc."),
    (r"\.norm_attention\.", ".norm_1.", ".norm_1."),
    (r"\.norm_ffn\.", ".norm_2.", ".norm_2_pre."),
    (r"\.norm_out\.", ".norm_2.", ".norm_2_post."),
    (r"\.norm_end\.", ".norm_final.", ".norm_final."),
    (r"(norm\w*)\.scalars\.", r"\1.norm_l0.", r"\1.norm_l0."),
    (
        r"((?:^|\.)norm(?:_1|_2|_2_pre|_2_post|_final|_enc)?)\.(weight|bias)$",
        r"\1.affine_\2",
        r"\1.affine_\2",
    ),
    (r"\.attention\.", ".ga.", ".graph_attention."),
    (r"\.score$", ".alpha_dot", ".alpha_dot"),
    (r"\.score_norm\.", ".alpha_norm.", ".alpha_norm."),
    (r"\.out\.(weight|bias)$", r".proj.\1", r".proj.\1"),
    (r"\.shortcut\.", ".ffn_shortcut.", ".ffn_shortcut."),
    (r"\.(first|second)\.axial\.", r".so2_conv_\1.fc_m0.", r".so2_conv_\1.fc_m0."),
    (
        r"\.(first|second)\.orders\.(\d+)\.",
        r".so2_conv_\1.so2_m_conv.\2.fc.",
        r".so2_conv_\1.so2_m_conv.\2.fc.",
    ),
    (r"\.(first|second)\.(weight|bias)$", r".so3_linear_\1.\2", r".so3_linear_\1.\2"),
    (r"(so\d_\w+)_first\.", r"\1_1.", r"\1_1."),
    (r"(so\d_\w+)_second\.", r"\1_2.", r"\1_2."),
    (r"(^|\.)(?:radial\.)?pair\.(source|target)\.", r"\1\2_embedding.", r"\1\2_embedding."),
    (r"\.radial\.net\.", ".rad_func.net.", ".rad_func.net."),
)


def original_names(network: EquiformerV2Original, dialect: str) -> dict[str, str]:
    """Our parameter names → theirs, for every parameter of the network.

    Raises:
      ValueError: for another dialect, or a network that the dialect has no words for.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"dialect must be one of {DIALECTS}, received {dialect!r}")
    config = network.config
    if dialect not in dialects(config):
        raise ValueError(
            "upstream knows neither norms after the residual nor injections nor weight norm, received placement="
            f"{config.placement!r}, injection={config.injection!r}, weight_norm={config.weight_norm}; use dialect='fork'"
        )
    names = {}
    for ours, _ in network.named_parameters():
        theirs = _translate(ours, DIALECTS.index(dialect))
        names[ours] = _place(theirs, ours, network, dialect)
    return names


def dialects(config: EquiformerV2OriginalConfig) -> tuple[str, ...]:
    """Those that can express a configuration."""
    plain = config.placement == "pre" and config.injection is None
    plain = plain and not (config.norm_block_end or config.norm_start or config.weight_norm)
    return DIALECTS if plain else ("fork",)


def transposed(network: nn.Module) -> frozenset[str]:
    """Names of our parameters whose last two axes are exchanged."""
    return frozenset(
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, SO3Linear)
    )


def reshape(value: Tensor, swap: bool) -> Tensor:
    """From their layout to ours, or back."""
    return value.mT if swap else value


def _translate(name: str, dialect: int) -> str:
    for rule in _RULES:
        name = re.sub(rule[0], rule[1 + dialect], name)
    return name


def _place(theirs: str, ours: str, network: EquiformerV2Original, dialect: str) -> str:
    """Settle the names that depend on the configuration."""
    kind = network.config.ffn_activation
    if kind.endswith("grid_mlp"):
        theirs = theirs.replace(".gate.", ".scalar_mlp.0.")
        theirs = re.sub(
            r"\.activation\.layers\.(\d)\.", lambda m: f".grid_mlp.{2 * int(m[1])}.", theirs
        )
    # The fork once replaced "ga" by "graph_attention" everywhere.
    gating = "gating_linear" if dialect == "upstream" else "graph_attentionting_linear"
    theirs = theirs.replace(".gate.", f".{gating}.")
    owner = _attention_of(ours, network)
    if owner is not None and not owner.share_m:
        # The radial network of unshared weights lives inside the first convolution.
        theirs = theirs.replace(".rad_func.", ".so2_conv_1.rad_func.")
    return theirs


def _attention_of(ours: str, network: EquiformerV2Original) -> Attention | None:
    path = ours.split(".radial.")[0]
    if ".radial." not in ours:
        return None
    module = network.get_submodule(path)
    return module if isinstance(module, Attention) else None
