"""What came out for each structure of an evaluation: a few numbers per structure, whatever its size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.symbols import Symbols
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Prediction
from equipoise.train.metrics import MEV, SUMS, Errors, Tally, structure_sums, tally_of, unconverged


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One entry per structure in every array, in the order of the data set: some 300 bytes each.

    Everything that is said about a set, or a part of it, is a ratio of sums of these rows, so subsets and resamplings need no
    second look at the predictions.
    """

    sums: np.ndarray  # [structures, SUMS]: numerators and counts of the errors
    mean_sums: np.ndarray  # the same for the mean predictor; a fingerprint of the labels too
    atoms: np.ndarray  # of each structure
    energy_true: np.ndarray  # eV, NaN without a label
    energy_pred: np.ndarray  # eV
    energy_mean: np.ndarray  # eV, of the mean predictor: sum of reference energies
    force_worst: np.ndarray  # eV/Å, largest length of the force error of an atom; NaN without
    force_worst_atom: np.ndarray  # its number in the structure, from 0; -1 without
    force_worst_element: np.ndarray  # its atomic number; 0 without
    passes: np.ndarray  # forward
    adjoint_passes: np.ndarray
    unconverged: np.ndarray  # bool
    non_finite: np.ndarray  # bool: a NaN or infinity in energy or forces
    molecule: np.ndarray  # index into `names`
    names: tuple[str, ...]  # of molecules: formulas, or what the caller calls them

    def __len__(self) -> int:
        return len(self.atoms)

    def of(self, rows: np.ndarray | slice) -> "Outcomes":
        """Some of the structures."""
        chosen = {name: getattr(self, name)[rows] for name in ARRAYS}
        return Outcomes(**chosen, names=self.names)

    @cached_property
    def tally(self) -> Tally:
        """The sums over all structures, to be added to those of other processes."""
        total = tally_of(self.sums.sum(0))
        whole = {"energies", "components", "stresses"}
        counts = {name: int(getattr(total, name)) for name in whole}
        return Tally(
            **{name: getattr(total, name) for name in SUMS if name not in whole},
            **counts,
            structures=len(self),
            passes=int(self.passes.sum()),
            adjoint_passes=int(self.adjoint_passes.sum()),
            unconverged=int(self.unconverged.sum()),
        )

    @cached_property
    def errors(self) -> Errors:
        return self.tally.errors()

    @cached_property
    def mean_predictor(self) -> Errors:
        """Errors of a "potential" that knows the composition only: reference energies, no forces."""
        return tally_of(self.mean_sums.sum(0)).errors()

    @property
    def energy_offset(self) -> tuple[float, float]:
        """Mean and standard deviation of the signed energy error, eV, where it is finite; NaN below two labels.

        A mean much larger than the deviation is a constant between two levels of theory or two zeros of energy, not a bad fit.
        """
        error = self.energy_pred - self.energy_true
        error = error[np.isfinite(error)]
        if len(error) < 2:
            return np.nan, np.nan
        return float(error.mean()), float(error.std())

    def molecules(self) -> Iterator[tuple[str, "Outcomes"]]:
        """The structures of each molecule, by name."""
        for index, name in enumerate(self.names):
            yield name, self.of(self.molecule == index)

    def worst(self, count: int) -> np.ndarray:
        """Numbers of the structures with the largest errors, worst first.

        What counts is the largest error of the force on one atom; without force labels, the energy error per atom. Structures
        with a prediction that is no number come first, and those without any label not at all.
        """
        score = self.force_worst
        if np.isnan(score).all():
            score = np.abs(self.energy_pred - self.energy_true) / self.atoms
        score = np.where(self.non_finite, np.inf, score)
        order = np.argsort(-score, kind="stable")  # NaN last
        return order[~np.isnan(score[order])][:count]

    def describe(self, index: int) -> dict[str, object]:
        """One structure, for a table: energy error (meV), force errors (meV/Å), and where."""
        components = self.sums[index, SUMS.index("components")]
        total = self.sums[index, SUMS.index("force_absolute")]
        atom, element = int(self.force_worst_atom[index]), int(self.force_worst_element[index])
        return {
            "index": int(index),
            "molecule": self.names[self.molecule[index]],
            "atoms": int(self.atoms[index]),
            "energy_error_mev": MEV * float(self.energy_pred[index] - self.energy_true[index]),
            "force_mae_mev": MEV * float(total / components) if components else float("nan"),
            "force_worst_mev": MEV * float(self.force_worst[index]),
            "force_worst_atom": atom if atom >= 0 else None,
            "force_worst_element": chemical_symbols[element] if element else None,
            "converged": not bool(self.unconverged[index]),
        }


ARRAYS = tuple(field.name for field in fields(Outcomes) if field.name != "names")


class Collector:
    """Puts together `Outcomes`, batch by batch."""

    def __init__(self, references: Tensor, names: Sequence[str] | None) -> None:
        """Takes the reference energy of each atomic number (eV, [119], NaN where unknown), and the molecule of each structure of
        the set; without, structures of one composition are one molecule."""
        self._references, self._given = references, names
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
        self._names: dict[str, int] = {}
        self._formulas: dict[bytes, str] = {}
        self._seen = 0

    def add(self, prediction: Prediction, graph: Graph) -> None:
        """One batch; everything on the CPU."""
        energy, forces = prediction.energy, prediction.forces
        mean = torch.zeros_like(energy)
        mean.index_add_(0, graph.owner, self._references[graph.species])
        nothing = torch.zeros(graph.n_atoms, 3, dtype=torch.float64)
        stress = None if prediction.stress is None else torch.zeros_like(prediction.stress)
        solution = prediction.equilibrium
        none = torch.zeros(graph.n_structures, dtype=torch.int64)
        worst, atom, element = _worst_atom(forces, graph)
        columns = {
            "sums": structure_sums(energy, forces, graph, stress=prediction.stress),
            "mean_sums": structure_sums(mean, nothing, graph, stress=stress),
            "atoms": graph.counts,
            "energy_true": torch.full_like(energy, torch.nan)
            if graph.energy is None
            else graph.energy,
            "energy_pred": energy,
            "energy_mean": mean,
            "force_worst": worst,
            "force_worst_atom": atom,
            "force_worst_element": element,
            "passes": none if solution is None else solution.passes,
            "adjoint_passes": none
            if solution is None or solution.adjoint_passes is None
            else solution.adjoint_passes,
            "unconverged": unconverged(prediction),
            "non_finite": _non_finite(energy, forces, graph),
            "molecule": torch.tensor([self._molecule(each) for each in _species(graph)]),
        }
        for name, column in columns.items():
            self._parts[name].append(column.detach().cpu().numpy())

    def outcomes(self) -> Outcomes:
        arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        return Outcomes(**arrays, names=tuple(self._names))

    def _molecule(self, species: np.ndarray) -> int:
        name = self._formula(species) if self._given is None else str(self._given[self._seen])
        self._seen += 1
        return self._names.setdefault(name, len(self._names))

    def _formula(self, species: np.ndarray) -> str:
        key = np.sort(species).tobytes()
        if key not in self._formulas:
            self._formulas[key] = str(Symbols(species).get_chemical_formula())
        return self._formulas[key]


def _species(graph: Graph) -> Iterator[np.ndarray]:
    return (each.numpy() for each in graph.species.split(graph.counts.tolist()))


def _worst_atom(forces: Tensor | None, graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """The largest length of a force error in each structure, the atom it belongs to, and its atomic number."""
    worst = torch.full((graph.n_structures,), torch.nan, dtype=torch.float64)
    atom = torch.full((graph.n_structures,), -1, dtype=torch.int64)
    element = torch.zeros(graph.n_structures, dtype=torch.int64)
    if forces is None or graph.forces is None:
        return worst, atom, element
    # Without a label, or with a prediction that is no number, there is no length to speak of.
    length = torch.linalg.vector_norm(forces - graph.forces, dim=1).nan_to_num(nan=-1.0)
    first = 0
    for index, count in enumerate(graph.counts.tolist()):
        part = length[first : first + count]
        if count and float(part.max()) >= 0:
            worst[index], atom[index] = part.max(), part.argmax()
            element[index] = graph.species[first + int(part.argmax())]
        first += count
    return worst, atom, element


def _non_finite(energy: Tensor, forces: Tensor | None, graph: Graph) -> Tensor:
    bad = ~energy.isfinite()
    if forces is not None:
        bad = bad.index_fill(0, graph.owner[~forces.isfinite().all(dim=1)], True)
    return bad
