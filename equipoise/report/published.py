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

# Energy and force MAE of each model; 950 training and 50 validation structures.
_RMD17_MODELS = ("MACE", "Allegro", "NequIP")
_RMD17 = {
    "aspirin": ((2.2, 6.6), (2.3, 7.3), (2.3, 8.2)),
    "azobenzene": ((1.2, 3.0), (1.2, 2.6), (0.7, 2.9)),
    "benzene": ((0.4, 0.3), (0.3, 0.2), (0.04, 0.3)),
    "ethanol": ((0.4, 2.1), (0.4, 2.1), (0.4, 2.8)),
    "malonaldehyde": ((0.8, 4.1), (0.6, 3.6), (0.8, 5.1)),
    "naphthalene": ((0.5, 1.6), (0.2, 0.9), (0.9, 1.3)),
    "paracetamol": ((1.3, 4.8), (1.5, 4.9), (1.4, 5.9)),
    "salicylic": ((0.9, 3.1), (0.9, 2.9), (0.7, 4.0)),
    "toluene": ((0.5, 1.5), (0.4, 1.8), (0.3, 1.6)),
    "uracil": ((0.5, 2.1), (0.6, 1.8), (0.4, 3.1)),
}


def published_for(data: str | None) -> tuple[Published, ...]:
    """The published levels for a data set, none where we know of none.

    Args:
        data: how the run names its data, e.g. `"rmd17:ethanol"`. Only the official names count: a file called
            rmd17_ethanol.xyz may hold anything.
    """
    source, _, molecule = (data or "").partition(":")
    if source != "rmd17" or molecule not in _RMD17:
        return ()
    errors = zip(_RMD17_MODELS, _RMD17[molecule], strict=True)
    return tuple(Published(model, energy, force, *_MACE_2022) for model, (energy, force) in errors)
