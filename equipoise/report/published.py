"""Errors other people have published, to stand beside ours.

Every entry names its source. They are levels to look up to, not a race won or lost: those networks
are of full size and were trained on GPUs, a quickstart takes minutes on two CPU cores.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Test errors of one published model on one data set."""

    model: str
    energy_mae_mev: float  # meV per structure
    force_mae_mev: float  # meV/Å
    reference: str  # short, as cited in a table
    source: str


_MACE_2022 = (
    "MACE 2022",
    "I. Batatia et al., MACE: Higher Order Equivariant Message Passing Neural Networks, NeurIPS "
    "2022 (arXiv:2206.07697), table of rMD17 errors with 950 + 50 training frames.",
)

RMD17_ETHANOL = (
    Published("MACE", 0.4, 2.1, *_MACE_2022),
    Published("Allegro", 0.4, 2.1, *_MACE_2022),
    Published("NequIP", 0.4, 2.8, *_MACE_2022),
)


def published_for(data: str | None) -> tuple[Published, ...]:
    """The published levels for a data set, none where we know of none.

    Args:
        data: how the run names its data, e.g. `"rmd17:ethanol"`. Only the official names count: a file called
            rmd17_ethanol.xyz may hold anything.
    """
    return RMD17_ETHANOL if data == "rmd17:ethanol" else ()
