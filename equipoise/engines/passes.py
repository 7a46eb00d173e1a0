"""How many joint passes a step gets, and the guess they start from: what keeps the energy.

Forces of unconverged passes are wrong in their fourth digit, and that by itself harms nobody. What harms is an error that
looks different backwards in time: it takes energy out of the fastest vibrations or feeds them, and a fed vibration grows
without end. (Ethanol, two passes with secants: the O-H stretch has twelve times its energy after 25 ps.) So the guess comes from
the predictor that is reversible to the highest order that so many passes keep stable, and the passes are plain: an
acceleration that learns from earlier steps knows a past and no future.
"""

import numpy as np
from ase.data import atomic_masses

from equipoise.deq import Joint
from equipoise.deq.predictors import ASPC, stable_guess, stable_scheme
from equipoise.engines.warm_start import WarmStart
from equipoise.graph import Graph
from equipoise.potentials import Potential

MOST = 4  # joint passes that still cost less than solving
# A guess is reversible as long as the fastest vibration takes small steps: 18 a period for O-H, and its overtones 9. With
# 1 fs the energy of ethanol drifts two hundred times as fast, 0.3 meV/atom/ps over 50 ps.
SMALL_STEP_FS = 0.5  # for hydrogen; vibrations slow down with the root of the mass


def longest_step_fs(masses: np.ndarray) -> float:
    """The time step, fs, up to which joint passes keep the energy of atoms with such masses (amu)."""
    return SMALL_STEP_FS * float(np.sqrt(masses.min(initial=np.inf) / atomic_masses[1]))


def reversible_passes(potential: Potential, graph: Graph) -> tuple[Joint, WarmStart] | None:
    """As few joint passes as keep the energy in dynamics from `graph`, and the memory they start from.

    None where solving is the better choice: a network that hardly contracts, or one
    without an equilibrium or with direct forces.
    """
    contraction = _contraction(potential, graph) if potential.conservative else None
    if contraction is None or not contraction < 1:
        return None
    predictor, passes = stable_scheme(contraction)
    return None if passes > MOST else (Joint(passes=passes), WarmStart(predictor))


def memory_for(joint: Joint, potential: Potential, graph: Graph) -> WarmStart:
    """The memory that so many joint passes start from in dynamics from `graph`.

    **Raises** `ValueError` if errors would grow from step to step, or there is no
    equilibrium to go to.
    """
    if joint.recycled or joint.tolerance is not None:
        return WarmStart(ASPC())  # not reversible anyway, and the rule is one for plain passes
    contraction = _contraction(potential, graph)
    if contraction is None:
        raise ValueError(
            "joint passes go to an equilibrium, and this potential has none; leave them out"
        )
    if not contraction < 1:
        raise ValueError(
            f"joint passes need a pass to shrink errors, received a structure where it multiplies them by {contraction:.2f}; "
            "if it resembles the training data, solve instead (leave joint out, --passes solve)"
        )
    return WarmStart(stable_guess(contraction, joint.passes))


def _contraction(potential: Potential, graph: Graph) -> float | None:
    found = potential.eval().contraction(graph.to(potential.device))
    return None if found is None else float(found.max())
