"""The structures a potential is most wrong about, in a file to look at."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.graph import Graph
from equipoise.potentials import Potential
from equipoise.train.predict import timed
from equipoise.train.state import make_folder, write_atomically


def save_worst(
    potential: Potential, graphs: Sequence[Graph], indices: Iterable[int], path: Path
) -> None:
    """Write structures as extxyz, in the order given, with references, predictions and their difference.

    In the file, `REF_energy` (eV) and `REF_forces` (eV/Å) are the labels, `energy` and `forces` the predictions, `index` is the
    place in the data set, and `force_error` (eV/Å, per atom) the length of the difference: what to colour atoms by.

    Args:
      potential: in `.eval()` mode; predicts them once more.
      graphs: the data set.
      indices: which structures, such as `Outcomes.worst`.
      path: of the file.

    Raises:
      SavingError: (an `OSError`) if the disk refuses.
    """
    frames = [_frame(potential, graphs[int(index)], int(index)) for index in indices]
    make_folder(path.parent)
    write_atomically(path, lambda partial: ase.io.write(partial, frames, format="extxyz"))


def _frame(potential: Potential, graph: Graph, index: int) -> ase.Atoms:
    (atoms,) = graph.to_ase()
    prediction, _ = timed(potential, graph)
    energy, forces = float(prediction.energy), prediction.forces.numpy()
    atoms.info["index"] = index
    if graph.energy is not None:
        atoms.info["REF_energy"] = float(graph.energy)
    if graph.forces is not None:
        labels = graph.forces.cpu().numpy()
        atoms.arrays["REF_forces"] = labels
        atoms.arrays["force_error"] = np.linalg.norm(forces - labels, axis=1)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms
