"""How good a potential is on structures with labels."""

import json
import statistics as middle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from equipoise.graph import Graph, batch
from equipoise.potentials import Potential, Statistics
from equipoise.train.bootstrap import Bootstrap
from equipoise.train.elements import ElementErrors, ElementSums
from equipoise.train.examine import Examination
from equipoise.train.metrics import MEV, Errors, Tally, finite_or_none
from equipoise.train.outcomes import ARRAYS, Collector, Outcomes
from equipoise.train.predict import timed
from equipoise.train.sample import Sample
from equipoise.train.state import make_folder, write_atomically

WORST = 10  # structures that are named


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors on a set of structures, what they cost, and the numbers behind them.

    Attributes:
      outcomes: one row per structure.
      elements: force errors by element.
      seconds_per_structure: energy and forces, in batches: the median over batches, the first (a warm-up) left out.
      batch_size: of the calls that were timed.
      forces_true, forces_pred: eV/Å, [atoms, 3], for parity plots. Of all structures, or, in a large set, of a random sample of
        them: as many as keeps memory bounded.
    """

    outcomes: Outcomes
    elements: tuple[ElementErrors, ...]
    seconds_per_structure: float
    batch_size: int
    forces_true: np.ndarray = field(repr=False)
    forces_pred: np.ndarray = field(repr=False)

    @property
    def errors(self) -> Errors:
        return self.outcomes.errors

    @property
    def mean_predictor(self) -> Errors:
        """Errors of a "potential" that knows the composition only: reference energies, no forces."""
        return self.outcomes.mean_predictor

    @property
    def tally(self) -> Tally:
        """The sums behind `errors`; those of several processes add up."""
        return self.outcomes.tally

    @property
    def structures(self) -> int:
        return len(self.outcomes)

    @property
    def passes_mean(self) -> float:
        """Forward and adjoint, per structure."""
        return self.tally.mean_passes + self.tally.mean_adjoint_passes

    @property
    def unconverged(self) -> int:
        """Structures whose fixed point, or adjoint, was not reached: their errors count too."""
        return self.tally.unconverged

    @property
    def non_finite(self) -> int:
        """Structures with a NaN or infinity in their energy or forces."""
        return int(self.outcomes.non_finite.sum())

    @property
    def energy_true(self) -> np.ndarray:
        """eV, [structures], NaN without a label."""
        return self.outcomes.energy_true

    @property
    def energy_pred(self) -> np.ndarray:
        """eV, [structures]."""
        return self.outcomes.energy_pred

    def as_dict(
        self,
        *,
        model: str = "",
        data: str = "",
        bootstrap: Bootstrap | None = None,
        examination: Examination | None = None,
    ) -> dict[str, object]:
        """The numbers, as they stand in `evaluation.json`.

        An error is None where there was no label, and where predictions were not finite: then `non_finite` is larger than 0.

        Args:
          model, data: what was evaluated on what, for people.
          bootstrap: how intervals are found.
          examination: further properties of the potential, if they were looked at.
        """
        bootstrap = Bootstrap() if bootstrap is None else bootstrap
        tally = self.tally
        offset, scatter = (finite_or_none(MEV * each) for each in self.outcomes.energy_offset)
        return {
            **self.errors.as_dict(),
            "intervals": _intervals(self.outcomes, bootstrap),
            "bootstrap": asdict(bootstrap),
            "energy_offset_mev": offset,
            "energy_scatter_mev": scatter,
            "mean_predictor": self.mean_predictor.as_dict(),
            "structures": self.structures,
            "labels": {
                "energies": tally.energies,
                "force_components": tally.components,
                "stress_components": tally.stresses,
            },
            "passes_mean": self.passes_mean,
            "passes_forward": tally.mean_passes,
            "passes_adjoint": tally.mean_adjoint_passes,
            "unconverged": self.unconverged,
            "non_finite": self.non_finite,
            "seconds_per_structure": self.seconds_per_structure,
            "batch_size": self.batch_size,
            "elements": [_plain(asdict(each)) for each in self.elements],
            "molecules": [_molecule(*each, bootstrap) for each in self.outcomes.molecules()],
            "worst": [_plain(self.outcomes.describe(i)) for i in self.outcomes.worst(WORST)],
            "examination": None if examination is None else examination.as_dict(),
            "model": model,
            "data": data,
        }

    def save(
        self,
        folder: Path,
        *,
        model: str = "",
        data: str = "",
        bootstrap: Bootstrap | None = None,
        examination: Examination | None = None,
    ) -> None:
        """Write `evaluation.json` and `evaluation.npz` into `folder`: `write` of `as_dict`, which takes the same arguments.

        Raises:
          SavingError: (an `OSError`) if the disk refuses.
        """
        self.write(
            folder,
            self.as_dict(model=model, data=data, bootstrap=bootstrap, examination=examination),
        )

    def write(self, folder: Path, record: dict[str, object]) -> None:
        """Write a record of `as_dict`, and the parity pairs with a row per structure, into `folder`.

        Raises:
          SavingError: (an `OSError`) if the disk refuses.
        """
        make_folder(folder)
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        write_atomically(folder / "evaluation.npz", self._save_arrays)
        write_atomically(folder / "evaluation.json", lambda partial: partial.write_text(text))

    def _save_arrays(self, path: Path) -> None:
        np.savez_compressed(
            path,
            forces_true=self.forces_true,
            forces_pred=self.forces_pred,
            names=np.array(self.outcomes.names),
            **{name: getattr(self.outcomes, name) for name in ARRAYS},
        )


def evaluate(
    potential: Potential,
    graphs: Sequence[Graph],
    *,
    batch_size: int = 16,
    statistics: Statistics | None = None,
    molecules: Sequence[str] | None = None,
    observe: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compare predictions with labels.

    Solves that do not converge are counted, not hidden and not left out. Structures are taken from `graphs` one batch at a time,
    so a sequence that builds them on access never has more than a batch in memory.

    Args:
      potential: used in `.eval()` mode, and left in the mode it came in.
      graphs: structures, one per graph, with labels; NaN and absent labels take no part. Stress is predicted where it is
        labelled, if the potential can.
      batch_size: structures per call; it changes the speed, not the numbers.
      statistics: those of the training set, for the mean predictor; the potential's own by default.
      molecules: what each structure is called in the errors per molecule; by default its formula.
      observe: is told after every batch how many structures are done.

    Raises:
      ValueError: if there are no structures, or none with a label.
    """
    if len(graphs) == 0:
        raise ValueError("evaluation needs at least one structure, received none")
    if molecules is not None and len(molecules) != len(graphs):
        raise ValueError(
            f"molecules must name each of the {len(graphs)} structures, received {len(molecules)} names"
        )
    if not any(_labelled(graphs[index]) for index in range(len(graphs))):  # stops at the first
        raise ValueError(
            f"evaluation needs labels, received {len(graphs)} structures without any energy or "
            "force; name the labels with energy_key and forces_key"
        )
    collector = Collector(_references(statistics or potential.statistics), molecules)
    by_element = ElementSums()
    pairs = Sample()
    seconds: list[float] = []
    done = 0
    was_training = potential.training
    potential.eval()
    try:
        for graph, stress in _batches(graphs, batch_size):
            # Direct forces come without a stress.
            prediction, took = timed(potential, graph, stress=stress and potential.conservative)
            collector.add(prediction, graph)
            by_element.add(prediction, graph)
            pairs.add(prediction, graph)
            seconds.append(took / graph.n_structures)
            done += graph.n_structures
            if observe is not None:
                observe(done)
    finally:
        potential.train(was_training)
    forces_true, forces_pred = pairs.forces()
    return Evaluation(
        outcomes=collector.outcomes(),
        elements=by_element.errors(),
        # The first call of a process sets up threads, kernels and memory.
        seconds_per_structure=middle.median(seconds[1:] or seconds),
        batch_size=batch_size,
        forces_true=forces_true,
        forces_pred=forces_pred,
    )


def _batches(graphs: Sequence[Graph], size: int) -> Iterator[tuple[Graph, bool]]:
    """Consecutive structures, at most `size` together, and whether they have a stress to compare with.

    Those with and without never share a batch: without a cell there is no stress to predict.
    """
    waiting: list[Graph] = []
    stressed = False
    for index in range(len(graphs)):
        # Forces are a derivative, also for callers in torch.inference_mode, where tensors are made that have none.
        with torch.inference_mode(False):
            graph = graphs[index]
        wanted = _has_stress(graph)
        if waiting and (len(waiting) == size or wanted != stressed):
            yield _together(waiting), stressed
            waiting = []
        waiting.append(graph)
        stressed = wanted
    yield _together(waiting), stressed


def _together(graphs: list[Graph]) -> Graph:
    with torch.inference_mode(False):
        return batch(graphs)


def _labelled(graph: Graph) -> bool:
    labels = (graph.energy, graph.forces, graph.stress if _has_stress(graph) else None)
    return any(label is not None and not bool(label.isnan().all()) for label in labels)


def _has_stress(graph: Graph) -> bool:
    if graph.stress is None or bool(graph.stress.isnan().all()):
        return False
    return bool(((graph.volume > 0) & graph.pbc.any(1)).all())


def _references(statistics: Statistics) -> Tensor:
    """Reference energy of each atomic number, eV; their sum is the training mean for one composition."""
    table = torch.full((len(chemical_symbols),), torch.nan, dtype=torch.float64)
    table[list(statistics.elements)] = torch.tensor(
        statistics.reference_energies, dtype=torch.float64
    )
    return table


def _molecule(name: str, outcomes: Outcomes, bootstrap: Bootstrap) -> dict[str, object]:
    return {
        "name": name,
        "structures": len(outcomes),
        **outcomes.errors.as_dict(),
        "intervals": _intervals(outcomes, bootstrap),
        "unconverged": outcomes.tally.unconverged,
    }


def _intervals(outcomes: Outcomes, bootstrap: Bootstrap) -> dict[str, list[float] | None]:
    found = bootstrap.intervals(outcomes.sums)
    return {name: each and [each.low, each.high] for name, each in found.items()}


def _plain(record: dict[str, object]) -> dict[str, object]:
    # JSON has no NaN, and browsers refuse Python's.
    return {k: finite_or_none(v) if isinstance(v, float) else v for k, v in record.items()}
