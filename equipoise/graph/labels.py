"""Reference labels of one structure, checked once for everybody."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Labels:
    """Reference values of one structure; None where the structure has none."""

    energy: float | None = None  # eV
    forces: np.ndarray | None = None  # [atoms, 3] eV/Angstrom
    stress: np.ndarray | None = None  # [6] eV/Angstrom^3, Voigt xx yy zz yz xz xy

    @classmethod
    def check(cls, n_atoms: int, *, energy: Any, forces: Any, stress: Any) -> "Labels":
        """Labels as float64, in these shapes, finite.

        **Arguments**

        - `energy`: one number or None. `forces`: [n_atoms, 3] or None.
        - `stress`: [6] in Voigt order, a symmetric [3, 3] or its 9 numbers, or None.

        **Raises** `ValueError` for another shape, a label that is not finite, and a
        stress that is not symmetric.
        """
        return cls(
            energy=None if energy is None else _energy(_array(energy, "energy")),
            forces=None if forces is None else _forces(_array(forces, "force"), n_atoms),
            stress=None if stress is None else _stress(_array(stress, "stress")),
        )


def _array(label: Any, name: str) -> np.ndarray:
    try:
        return np.array(label, dtype=np.float64)  # a copy: labels are ours to keep
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} labels must be numbers: {error}") from error


def _energy(energy: np.ndarray) -> float:
    if energy.size != 1:
        raise ValueError(f"an energy label must be one number, received shape {energy.shape}")
    if not np.isfinite(energy).all():
        raise ValueError(f"an energy label must be finite, received {energy.item()}")
    return float(energy.item())


def _forces(forces: np.ndarray, n_atoms: int) -> np.ndarray:
    if forces.shape != (n_atoms, 3):
        raise ValueError(
            f"force labels must have shape [atoms, 3] = ({n_atoms}, 3), received {forces.shape}"
        )
    finite = np.isfinite(forces).all(axis=1)
    if not finite.all():
        atom = int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"force labels must be finite, received {forces[atom].tolist()} for atom {atom}"
        )
    return forces


def _stress(stress: np.ndarray) -> np.ndarray:
    if stress.shape not in ((6,), (9,), (3, 3)):
        raise ValueError(
            f"a stress label must have shape [6] (Voigt xx yy zz yz xz xy) or [3, 3], "
            f"received {stress.shape}"
        )
    if not np.isfinite(stress).all():
        raise ValueError(f"a stress label must be finite, received {stress.tolist()}")
    if stress.shape == (6,):
        return stress
    full = stress.reshape(3, 3)
    if not np.allclose(full, full.T, rtol=1e-4, atol=1e-8):
        raise ValueError(f"a stress label must be symmetric, received {full.tolist()}")
    full = (full + full.T) / 2
    return full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
