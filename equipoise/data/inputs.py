"""Structures by whatever name a person gives them: a file, a folder, or a published data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from equipoise.data.provenance import check_energies, theories_of
from equipoise.data.read import label_keys, read
from equipoise.data.sources.arrays import Joined
from equipoise.data.sources.registry import SOURCES, find_source, find_variants, read_source
from equipoise.data.sources.trajectory import read_trajectory
from equipoise.graph import Graph

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Input:
    """Structures, and what is known of them.

    Attributes:
      graphs: in eV and Å.
      name: as it was asked for.
      labels: kind of label -> its name in the file.
      theory: how the labels were computed; None if nobody says.
      about: source, licence, citation, as far as they are known.
      file: where they come from; None for a published data set.
    """

    graphs: Sequence[Graph] = field(repr=False)
    name: str
    labels: dict[str, str]
    theory: str | None = None
    about: dict[str, str] = field(default_factory=dict)
    file: Path | None = None


def open_input(
    name: str,
    *,
    cutoff: float,
    part: str | None = None,
    folder: Path | None = None,
    target: str | None = None,
    split: int = 1,
    energy_key: str | None = None,
    forces_key: str | None = None,
    unit: str | None = None,
) -> Input:
    """Structures to look at, to convert or to divide; those that fit no memory are read one by one.

    Args:
      name: a file or folder that :func:`equipoise.data.read` or :func:`equipoise.data.read_trajectory` reads; or a published data
        set, NAME or NAME:SUBSET, as it stands on the disk.
      cutoff: Å, of the graphs.
      part: of a published data set: "train", "validation", "test"; None for all its structures.
      folder: where the files of a published data set are, if not where downloads go.
      target, split: of a published data set, as for :func:`equipoise.data.read_source`.
      energy_key, forces_key: names of the labels in a file.
      unit: of the energies in an `.npz` that does not say.

    Raises:
      FileNotFoundError: there is no such file, and no data set of that name; or its files are missing.
      ValueError: it cannot be read; the energies are in another unit than eV.
    """
    path = Path(name)
    if path.exists():
        return open_file(
            path, cutoff=cutoff, energy_key=energy_key, forces_key=forces_key, unit=unit
        )
    source_name, _, subset = name.partition(":")
    if source_name not in SOURCES:
        raise FileNotFoundError(
            f"there is no file {name!r}, and no data set of that name; data sets: {', '.join(SOURCES)}"
        )
    if part not in (None, *PARTS):
        raise ValueError(f"part must be one of {', '.join(PARTS)}, received {part!r}")
    source = find_source(source_name)
    found = read_source(
        source_name,
        subset=subset or None,
        folder=folder,
        cutoff=cutoff,
        target=target,
        split=split,
    )
    wanted = [getattr(found, each) for each in (PARTS if part is None else (part,))]
    wanted = [graphs for graphs in wanted if len(graphs)]
    if not wanted:
        raise ValueError(f"{name} has no {part or 'structures'} here")
    graphs = wanted[0] if len(wanted) == 1 else Joined(wanted)
    names = ",".join(variant.name for variant in find_variants(source, subset or None))
    about = {
        "source": f"{source_name}:{names}" + (f" {part}" if part else ""),
        "theory": found.theory,
        "licence": source.licence,
        "citation": source.citation,
    }
    labels = graphs.labels() if hasattr(graphs, "labels") else {}
    return Input(graphs, name=name, labels=labels, theory=found.theory, about=about)


def open_file(
    path: Path,
    *,
    cutoff: float,
    energy_key: str | None = None,
    forces_key: str | None = None,
    unit: str | None = None,
) -> Input:
    """Structures of a file or folder; see :func:`open_input`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read; the energies are in another unit than eV.
    """
    keys = {"energy_key": energy_key, "forces_key": forces_key}
    if path.suffix == ".npz" and not any(keys.values()):
        graphs = read_trajectory(path, cutoff=cutoff, unit=unit)
        labels = graphs.labels()
    elif unit is not None:
        raise ValueError(
            f"a unit is only taken for an .npz that does not say its own, received {unit!r} for {path}; labels must be in eV"
        )
    else:
        graphs = read(path, cutoff=cutoff, **keys)
        labels = label_keys(path, **keys)
    check_energies(graphs, where=str(path))
    theories = theories_of(path)
    theory = " and ".join(theories) or None
    about = {"source": path.name} | ({"theory": theory} if theory else {})
    return Input(graphs, name=str(path), labels=labels, theory=theory, about=about, file=path)
