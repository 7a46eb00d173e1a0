"""How good a potential is on structures with labels."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equipoise.graph import Graph, batch
from equipoise.potentials import Potential, Statistics
from equipoise.train.metrics import Errors, Tally
from equipoise.train.state import make_folder, write_atomically


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors on a set of structures, what they cost, and the pairs behind them."""

    errors: Errors
    # Errors of a "potential" that knows the composition only: reference energies, no forces.
    mean_predictor: Errors
    structures: int
    passes_mean: float  # forward and adjoint, per structure
    unconverged: int  # structures whose fixed point was not reached: their errors count too
    non_finite: int  # structures with a NaN or infinity in their energy or forces
    seconds_per_structure: float  # energy and forces, in batches
    energy_true: np.ndarray = field(repr=False)  # [structures], eV, NaN without a label
    energy_pred: np.ndarray = field(repr=False)  # [structures], eV
    forces_true: np.ndarray = field(repr=False)  # [atoms, 3], eV/Angstrom
    forces_pred: np.ndarray = field(repr=False)  # [atoms, 3], eV/Angstrom

    def as_dict(self, *, model: str = "", data: str = "") -> dict[str, object]:
        """The numbers, as they stand in `evaluation.json`.

        An error is None where there was no label, and where predictions were not finite: then
        `non_finite` is larger than 0.
        """
        return {
            **_numbers(self.errors),
            "mean_predictor": _numbers(self.mean_predictor),
            "structures": self.structures,
            "passes_mean": self.passes_mean,
            "unconverged": self.unconverged,
            "non_finite": self.non_finite,
            "seconds_per_structure": self.seconds_per_structure,
            "model": model,
            "data": data,
        }

    def save(self, folder: Path, *, model: str = "", data: str = "") -> None:
        """Write `evaluation.json` and `evaluation.npz` (the parity pairs) into `folder`.

        **Arguments**: `model` and `data` say what was evaluated on what, for people.

        **Raises** `SavingError` (an `OSError`) if the disk refuses.
        """
        make_folder(folder)
        text = json.dumps(self.as_dict(model=model, data=data), indent=2) + "\n"
        write_atomically(folder / "evaluation.npz", self._save_pairs)
        write_atomically(folder / "evaluation.json", lambda partial: partial.write_text(text))

    def _save_pairs(self, path: Path) -> None:
        np.savez_compressed(
            path,
            energy_true=self.energy_true,
            energy_pred=self.energy_pred,
            forces_true=self.forces_true,
            forces_pred=self.forces_pred,
        )


def evaluate(
    potential: Potential,
    graphs: Sequence[Graph],
    *,
    batch_size: int = 16,
    statistics: Statistics | None = None,
) -> Evaluation:
    """Compare predictions with labels.

    **Arguments**

    - `potential`: used in `.eval()` mode, and left in the mode it came in.
    - `graphs`: structures with labels; NaN and absent labels take no part.
    - `batch_size`: structures per call; it changes the speed, not the numbers.
    - `statistics`: those of the training set, for the mean predictor; the potential's own by
      default.

    Solves that do not converge are counted, not hidden and not left out.

    **Raises** `ValueError` if there are no structures, or none with a label.
    """
    if not graphs:
        raise ValueError("evaluation needs at least one structure, received none")
    if all(graph.energy is None and graph.forces is None for graph in graphs):
        raise ValueError(
            f"evaluation needs labels, received {len(graphs)} structures without any energy or "
            "force; name the labels with energy_key and forces_key"
        )
    statistics = potential.statistics if statistics is None else statistics
    references = dict(zip(statistics.elements, statistics.reference_energies, strict=True))
    ours, mean = Tally(), Tally()
    pairs: dict[str, list[Tensor]] = {"et": [], "ep": [], "ft": [], "fp": []}
    seconds, non_finite = 0.0, 0
    was_training = potential.training
    potential.eval()
    # Forces are a derivative: callers who switched gradients off still get them.
    with torch.inference_mode(False), torch.enable_grad():
        for first in range(0, len(graphs), batch_size):
            graph = batch(graphs[first : first + batch_size]).to(potential.device)
            began = time.perf_counter()
            prediction = potential(graph, unconverged="accept")
            energy, forces = prediction.energy.cpu(), prediction.forces.cpu()  # waits for a GPU
            seconds += time.perf_counter() - began
            ours.add(prediction, graph)
            graph = graph.to("cpu")
            non_finite += _non_finite(energy, forces, graph.owner)
            mean.add_errors(_mean_energy(graph, references), torch.zeros_like(forces), graph)
            for key, value in (
                ("et", _or_nan(graph.energy, energy)),
                ("ep", energy),
                ("ft", _or_nan(graph.forces, forces)),
                ("fp", forces),
            ):
                pairs[key].append(value.detach())
    potential.train(was_training)
    energy_true, energy_pred, forces_true, forces_pred = (
        torch.cat(pairs[key]).numpy() for key in ("et", "ep", "ft", "fp")
    )
    return Evaluation(
        errors=ours.errors(),
        mean_predictor=mean.errors(),
        structures=len(graphs),
        passes_mean=ours.mean_passes + ours.mean_adjoint_passes,
        unconverged=ours.unconverged,
        non_finite=non_finite,
        seconds_per_structure=seconds / len(graphs),
        energy_true=energy_true,
        energy_pred=energy_pred,
        forces_true=forces_true,
        forces_pred=forces_pred,
    )


def _mean_energy(graph: Graph, references: dict[int, float]) -> Tensor:
    """Sum of reference energies, eV, [structures]; the training mean for one composition."""
    atoms = torch.tensor([references[int(z)] for z in graph.species], dtype=torch.float64)
    energy = torch.zeros(graph.n_structures, dtype=torch.float64)
    return energy.index_add_(0, graph.owner, atoms)


def _non_finite(energy: Tensor, forces: Tensor, owner: Tensor) -> int:
    """How many structures have a prediction that is no number."""
    bad = ~energy.isfinite()
    bad[owner[~forces.isfinite().all(dim=1)]] = True
    return int(bad.sum())


def _numbers(errors: Errors) -> dict[str, float | None]:
    # JSON has no NaN, and browsers refuse Python's.
    return {k: v if math.isfinite(v) else None for k, v in asdict(errors).items()}


def _or_nan(label: Tensor | None, like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan) if label is None else label
