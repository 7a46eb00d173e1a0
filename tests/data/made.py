"""Small data sets with everything in them that makes data sets difficult."""

from multiprocessing import get_context

import ase.build
import numpy as np
import torch

from equipoise.data.sources import rmd17
from equipoise.graph import Graph

CUTOFF = 4.0
FIELDS = ("positions", "species", "cell", "pbc", "senders", "receivers", "shifts")
LABELS = ("energy", "forces", "stress")


def ethanol(number):
    """The first of the shipped structures."""
    with np.load(rmd17._SHIPPED / "train_01.npz", allow_pickle=False) as archive:
        species = archive["nuclear_charges"].astype(np.int64)
        frames = [archive[name][:number] for name in ("coords", "energies", "forces")]
    return [
        Graph.build(coords, species, cutoff=CUTOFF, energy=energy, forces=forces)
        for coords, energy, forces in zip(*frames, strict=True)
    ]


def labelled(atoms, kinds, seed):
    """A structure with random labels of some kinds."""
    rng = np.random.default_rng(seed)
    labels = {
        "energy": rng.normal() - 100.0,
        "forces": rng.normal(size=(len(atoms), 3)),
        "stress": rng.normal(size=6),
    }
    graph = Graph.from_ase(atoms, CUTOFF, labels=False)
    return Graph.build(
        graph.positions,
        graph.species,
        cutoff=CUTOFF,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        **{kind: labels[kind] for kind in kinds},
    )


def mixture():
    """Molecules, an isolated atom, a crystal smaller than the cutoff, a slab; labels of every kind, here and there missing."""
    copper = ase.build.bulk("Cu")  # one atom, 2.55 Å from its images
    slab = ase.build.fcc111("Al", (1, 1, 2), vacuum=6.0)
    far = ase.build.molecule("C6H6")
    far.positions += [200.0, -150.0, 90.0]
    graphs = [
        labelled(ase.build.molecule("H2O"), ("energy", "forces"), 0),
        labelled(far, ("energy", "forces"), 1),
        labelled(ase.Atoms("He"), ("energy",), 2),
        labelled(copper, ("energy", "forces", "stress"), 3),
        labelled(slab, ("forces",), 4),
        labelled(ase.build.molecule("CH4"), (), 5),
    ]
    forces = graphs[0].forces.clone()
    forces[1] = torch.nan  # the force on one atom is not known
    graphs[0] = graphs[0].replace(forces=forces)
    return graphs


def same(one, other, *, exact=True):
    """Whether two graphs hold the same numbers; NaN equals NaN."""
    for name in (*FIELDS, *LABELS):
        first, second = getattr(one, name), getattr(other, name)
        if first is None or second is None:
            if first is not second:
                return False
        elif exact and not torch.equal(
            torch.nan_to_num(first, 7e99), torch.nan_to_num(second, 7e99)
        ):
            return False
        elif not exact and not torch.allclose(
            first.double(), second.double(), rtol=0, atol=1e-9, equal_nan=True
        ):
            return False
    return True


def in_child(function, *arguments):
    """Run a function in a forked process; its exit code."""
    process = get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode
