"""mlearn: six elements in bulk, with strain, surfaces, vacancies and molecular dynamics; PBE."""

import json
from pathlib import Path

import numpy as np

from equipoise.data.download import Remote
from equipoise.data.sources.arrays import ArrayStructures
from equipoise.data.sources.npz import read_npz
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.structures import Subset

_URL = "https://raw.githubusercontent.com/materialsvirtuallab/mlearn/10c427a5480c6281c15c64efaf869b03be04818f/data"
# element -> (atomic number, structures, sha256 of test.json, sha256 of training.json)
_ELEMENTS = {
    "Cu": (29, None, "1805a315ce8d0ce4a18bb761df4c4f619909ce114d598d426015d0071edc98c2", None),
    "Ge": (
        32,
        253,
        "737ea6159c9dd27ebee7fb8ffae22f15e20466884927771248ca4f5b2cd3f093",
        "43dee02009a5167f94c7aafce19051222bcfc328c46181750cc2a2018187ca00",
    ),
    "Li": (
        3,
        270,
        "554d0ce60b35a07b357be3a80bf04f68eb8fc97b5a88328caf08c860b5e9b260",
        "1cac01475c5a4fb85771ee1fd23366a6b8abfb9891e0c9e088b6e37228e147b3",
    ),
    "Mo": (
        42,
        217,
        "68169e2927c2115daa2f504805fcb9548ee65daf2dd015428807ba92f8e13bb8",
        "b13305fca0d0d2631ab080c8fcf13c743ee79a911712fb65a34ca88fadf09f9a",
    ),
    "Ni": (28, None, "dccbfa14ddff5d1d35f658c48b68f6b431f95496a5261ef8b8f4d1d41e36008a", None),
    "Si": (
        14,
        239,
        "d452b30a89f23bff76f7cc529b7b6c2d159ea81ccd5a4599fb1a18207654fa91",
        "ae6d4b0a65b00e0fcf7ba0a6fad366716710d2f0d21d70199203089c6866b500",
    ),
}


def read_json(path: Path, number: int, *, cutoff: float) -> ArrayStructures:
    """One file of the repository: structures as pymatgen writes them to JSON, each with its energy and forces.

    Args:
      path: training.json or test.json of one element.
      number: its atomic number.
      cutoff: Å, of the graphs.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it has another layout, or is cut short.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        cells = [entry["structure"]["lattice"]["matrix"] for entry in entries]
        positions = [[site["xyz"] for site in entry["structure"]["sites"]] for entry in entries]
        energies = [entry["outputs"]["energy"] for entry in entries]
        forces = [entry["outputs"]["forces"] for entry in entries]
        flat = np.concatenate([np.asarray(each, dtype=np.float64) for each in positions])
        flat_forces = np.concatenate([np.asarray(each, dtype=np.float64) for each in forces])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of mlearn, or cut short: {error!r}") from error
    return ArrayStructures(
        origin=str(path),
        cutoff=cutoff,
        positions=flat,
        species=np.full(len(flat), number),
        offsets=np.concatenate([[0], np.cumsum([len(each) for each in positions])]),
        energy=np.array(energies, dtype=np.float64),
        forces=flat_forces,
        cell=np.array(cells, dtype=np.float64),
        pbc=True,
    )


def _read(query: Query) -> Parts:
    element = query.variant.name
    number = _ELEMENTS[element][0]
    base = query.folder or SOURCE.folder()
    packed = base / f"mlearn_{element}.npz" if base.is_dir() else base
    if packed.suffix == ".npz" and packed.is_file():
        keys = ("Z", "offsets", "R", "F", "E", "cell", "is_test")
        arrays = read_npz(packed, keys)
        graphs = ArrayStructures(
            origin=str(packed),
            cutoff=query.cutoff,
            positions=arrays["R"],
            species=np.full(len(arrays["R"]), int(arrays["Z"])),
            offsets=arrays["offsets"],
            energy=arrays["E"],
            forces=arrays["F"],
            cell=arrays["cell"],
            pbc=True,
            names={"energy": "E", "forces": "F"},
        )
        is_test = arrays["is_test"].astype(bool)
        return Parts(
            train=Subset(graphs, np.flatnonzero(~is_test)),
            test=Subset(graphs, np.flatnonzero(is_test)),
        )
    train, test = (
        SOURCE.find(query, f"{element}/{name}.json", f"{name}.json")
        for name in ("training", "test")
    )
    return Parts(
        train=read_json(train, number, cutoff=query.cutoff),
        test=read_json(test, number, cutoff=query.cutoff),
    )


SOURCE = Source(
    name="mlearn",
    title="mlearn: bulk elements",
    theory="PBE (VASP)",
    units="eV, eV/Å",
    labels="energy, forces",
    periodic=True,
    licence="BSD-3-Clause",
    citation="Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020)",
    homepage="https://github.com/materialsvirtuallab/mlearn",
    subset="an element",
    variants=tuple(
        Variant(
            name=element,
            structures=structures,
            files=tuple(
                Remote(
                    url=f"{_URL}/{element}/{name}.json",
                    name=f"{element}/{name}.json",
                    digest=None if sha256 is None else f"sha256:{sha256}",
                )
                for name, sha256 in (("training", training), ("test", test))
            ),
        )
        for element, (_, structures, test, training) in _ELEMENTS.items()
    ),
    splits="official training and test structures",
    notes="The files hold virial stresses, whose sign and unit they do not say: they are not read.",
    read=_read,
)
