"""Structures by whatever name a person gives them: a file, a folder, or a published data set."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from equipoise.data.extxyz import SUFFIXES, frame_text, renamed_text
from equipoise.data.provenance import check_energies, theories_of
from equipoise.data.read import check_lazy_labels, label_keys, read
from equipoise.data.sources.arrays import Joined
from equipoise.data.sources.extxyz_frames import ExtxyzFrames
from equipoise.data.sources.registry import SOURCES, find_source, find_variants, read_source
from equipoise.data.sources.trajectory import read_trajectory
from equipoise.data.structures import KINDS, Structure, Structures, Subset
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
      mixed: parts that must be kept apart were joined without being asked for: no training set, test structures are among them.
    """

    graphs: Sequence[Graph] = field(repr=False)
    name: str
    labels: dict[str, str]
    theory: str | None = None
    about: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    mixed: bool = False

    @property
    def references(self) -> bool:
        """Whether :meth:`text` writes labels under their REF_ names, for those structures that have any."""
        graphs = self.graphs
        copied = self.file is not None and isinstance(graphs, ExtxyzFrames)
        return copied and graphs.references and not any(graphs.keys.values())

    def text(self, row: int, *, plain: bool = False) -> str:
        """One structure as extxyz: if that is what the file is, with all that it says, its labels under the usual names.

        Args:
          row: which structure.
          plain: write REF_ labels under plain names, as the others have them that are to be in the same file.
        """
        graphs = self.graphs
        if self.file is None or not isinstance(graphs, ExtxyzFrames):
            structure = (
                graphs.structure(row)
                if isinstance(graphs, Structures)
                else Structure.of(graphs[row])[0]
            )
            about = {key: self.about[key] for key in ("source", "theory") if key in self.about}
            return frame_text(structure, about)
        if plain or any(graphs.keys.values()):
            return renamed_text(graphs.atoms(row), graphs.structure(row), graphs.keys)
        return graphs.text(row)

    def left_behind(self) -> set[str]:
        """What the file says of structures or atoms that is no part of them here, by its name."""
        if self.file is None or not isinstance(self.graphs, ExtxyzFrames):
            return set()
        usual = {name for k in KINDS if k not in self.labels for name in (k, f"REF_{k}")}
        return self.graphs.names() - usual - {*self.labels.values(), "theory"}


def open_input(
    name: str,
    *,
    cutoff: float,
    part: str | None = None,
    folder: Path | None = None,
    target: str | None = None,
    split: int | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    unit: str | None = None,
    force_unit: str | None = None,
) -> Input:
    """Structures to look at, to convert or to divide, in the order of their files; those that fit no memory are read one by one.

    Args:
      name: a file or folder that :func:`equipoise.data.read` or :func:`equipoise.data.read_trajectory` reads; or a published data
        set, NAME or NAME:SUBSET, as it stands on the disk.
      cutoff: Å, of the graphs.
      part: of a published data set: "train", "validation", "test"; "all" or None for all its structures.
      folder: where the files of a published data set are, if not where downloads go.
      target, split: of a published data set, as for :func:`equipoise.data.read_source`.
      energy_key, forces_key, stress_key: names of the labels in a file.
      unit, force_unit: of the labels in an `.npz` that does not say.

    Raises:
      FileNotFoundError: there is no such file, and no data set of that name; or its files are missing.
      ValueError: it cannot be read; the energies are in another unit than eV; an argument that is not for this kind of input.
    """
    path = Path(name)
    of_file = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    of_file |= {"unit": unit, "force_unit": force_unit}
    of_source = {"part": part, "folder": folder, "target": target, "split": split}
    if path.exists():
        _refuse(of_source, "of a published data set", f"the file {name}")
        return open_file(path, cutoff=cutoff, **of_file, lazy=True)
    source_name, _, subset = name.partition(":")
    if source_name not in SOURCES:
        raise FileNotFoundError(
            f"there is no file {name!r}, and no data set of that name; data sets: {', '.join(SOURCES)}"
        )
    _refuse(of_file, "of a file", f"the published data set {name}")
    if part not in (None, "all", *PARTS):
        raise ValueError(f"part must be one of {', '.join(PARTS)}, all, received {part!r}")
    source = find_source(source_name)
    found = read_source(
        source_name,
        subset=subset or None,
        folder=folder,
        cutoff=cutoff,
        target=target,
        split=1 if split is None else split,
    )
    wanted = [getattr(found, each) for each in (PARTS if part in (None, "all") else (part,))]
    wanted = _in_order([graphs for graphs in wanted if len(graphs)])
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
    mixed = part is None and found.apart
    return Input(graphs, name=name, labels=labels, theory=found.theory, about=about, mixed=mixed)


def open_file(
    path: Path,
    *,
    cutoff: float,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    unit: str | None = None,
    force_unit: str | None = None,
    lazy: bool = False,
) -> Input:
    """Structures of a file or folder; see :func:`open_input`.

    With ``lazy`` frames of extxyz are parsed when they are asked for, with tags and held atoms: for one pass over them, or for a
    file that does not fit into memory with its edges. Other files are what :func:`equipoise.data.read` makes of them.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read; the energies are in another unit than eV.
    """
    keys = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    if path.suffix == ".npz" and not any(keys.values()):
        graphs = read_trajectory(path, cutoff=cutoff, unit=unit, force_unit=force_unit)
        labels = graphs.labels()
    elif unit is not None or force_unit is not None:
        raise ValueError(
            f"a unit is only taken for an .npz that does not say its own, received {unit or force_unit!r} for {path}; labels must "
            f"be in eV and eV/Å"
        )
    elif lazy and path.is_file() and path.suffix in SUFFIXES:
        graphs = _frames(path, cutoff, keys)
        labels = label_keys(path, **keys)
    else:
        graphs = read(path, cutoff=cutoff, **keys)
        labels = label_keys(path, **keys)
    check_energies(graphs, where=str(path))
    theories = theories_of(path)
    theory = " and ".join(theories) or None
    about = {"source": path.name} | ({"theory": theory} if theory else {})
    return Input(graphs, name=str(path), labels=labels, theory=theory, about=about, file=path)


def _frames(path: Path, cutoff: float, keys: dict[str, str | None]) -> ExtxyzFrames:
    every = {kind: keys.get(f"{kind}_key") for kind in KINDS}
    frames = ExtxyzFrames.of(path, cutoff=cutoff, keys=every)
    if len(frames) == 0:
        raise ValueError(f"{path} holds no structures")
    check_lazy_labels(frames, every)
    for text in frames.remarks():
        warnings.warn(text, stacklevel=4)
    return frames


def _in_order(parts: Sequence[Sequence[Graph]]) -> list[Sequence[Graph]]:
    """The same structures in the order of their files, from which others are read again and again, each time unpacked."""
    flat = [each for part in parts for each in (part.parts if isinstance(part, Joined) else [part])]
    rows: dict[int, list[np.ndarray]] = {}
    for each in flat:
        if isinstance(each, Subset):
            rows.setdefault(id(each.graphs), []).append(each.rows)
    ordered: list[Sequence[Graph]] = []
    for each in flat:
        if not isinstance(each, Subset):
            ordered.append(each)
        elif id(each.graphs) in rows:
            together = np.concatenate(rows.pop(id(each.graphs)))
            ordered.append(Subset(each.graphs, np.sort(together)))
    return ordered


def _refuse(options: dict[str, object], where: str, given: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{name} is {where}, received {str(value)!r} with {given}; leave it out"
            )
