"""What a potential must know about its training set before the first step."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from equipoise.graph import Graph


@dataclass(frozen=True)
class Statistics:
    """Scales and offsets of a training set."""

    elements: tuple[int, ...]  # atomic numbers, ascending
    reference_energies: tuple[float, ...]  # eV per atom of each element
    force_rms: float  # eV/Angstrom, over all components
    mean_neighbours: float  # edges per atom
    mean_atoms: float  # atoms per structure


def statistics(graphs: Iterable[Graph]) -> Statistics:
    r"""Statistics of labelled structures (single graphs or batches), in float64.

    The reference energies $\varepsilon_Z$ solve the least-squares problem

    $$ \min_\varepsilon \sum_s \Big( E_s - \sum_Z n_{sZ}\, \varepsilon_Z \Big)^2, $$

    $n_{sZ}$ the number of atoms of element Z in structure s. If the compositions do
    not determine it (a single molecule does not), it is the solution of minimum norm:
    then only the sum over a known composition has a meaning, not the single values.

    The force RMS is $\sqrt{\langle F_{i\alpha}^2 \rangle}$ over atoms and components.
    Missing labels (None or NaN) are left out. Without any energy the references are
    0; without forces, or if all are 0, the force RMS is 1, a scale that does nothing.

    **Raises** `ValueError` when there are no structures.
    """
    graphs = list(graphs)
    if not graphs:
        raise ValueError("statistics need at least one structure, received none")
    species = np.concatenate([g.species.cpu().numpy() for g in graphs])
    elements = np.unique(species)
    compositions, energies, forces = [], [], []
    atoms = edges = structures = 0
    for graph in graphs:
        atoms += graph.n_atoms
        edges += graph.n_edges
        structures += graph.n_structures
        if graph.energy is not None:
            compositions.append(_composition(graph, elements))
            energies.append(graph.energy.detach().cpu().numpy())
        if graph.forces is not None:
            forces.append(graph.forces.detach().cpu().numpy().ravel())
    return Statistics(
        elements=tuple(int(z) for z in elements),
        reference_energies=_references(compositions, energies, len(elements)),
        force_rms=_force_rms(forces),
        mean_neighbours=edges / atoms,
        mean_atoms=atoms / structures,
    )


def _composition(graph: Graph, elements: np.ndarray) -> np.ndarray:
    """Atoms of each element in each structure: [structures, elements]."""
    counts = np.zeros((graph.n_structures, len(elements)))
    columns = np.searchsorted(elements, graph.species.cpu().numpy())
    np.add.at(counts, (graph.owner.cpu().numpy(), columns), 1.0)
    return counts


def _references(
    compositions: list[np.ndarray], energies: list[np.ndarray], n_elements: int
) -> tuple[float, ...]:
    if not energies:
        return (0.0,) * n_elements
    counts, energy = np.concatenate(compositions), np.concatenate(energies)
    known = ~np.isnan(energy)
    if not known.any():
        return (0.0,) * n_elements
    solution = np.linalg.lstsq(counts[known], energy[known], rcond=None)[0]
    return tuple(float(value) for value in solution)


def _force_rms(forces: list[np.ndarray]) -> float:
    if not forces:
        return 1.0
    components = np.concatenate(forces)
    components = components[~np.isnan(components)]
    if not components.any():
        return 1.0
    return float(np.sqrt(np.mean(components**2)))
