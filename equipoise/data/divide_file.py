"""A file of structures, divided into files to train, validate and test with."""

import json
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equipoise.data.extxyz import SUFFIXES, whole_file
from equipoise.data.inputs import open_input
from equipoise.data.sources.extxyz_frames import ExtxyzFrames, text_has_references
from equipoise.data.split import blocks, formulas, split
from equipoise.data.structures import Structures, Subset
from equipoise.data.survey import geometry_key

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Division:
    """What became of a file.

    Attributes:
      files: "train", "validation", "test" -> the file written; a part without structures has none.
      counts: how many structures each part has.
      left_out: structures that are in no part, because the same geometry is in a part before it.
      groups: how many groups there were that were not divided.
    """

    files: dict[str, Path]
    counts: dict[str, int]
    left_out: int
    groups: int


def divide_file(
    path: Path,
    folder: Path,
    *,
    train: int | float,
    validation: int | float,
    by: str = "random",
    seed: int = 0,
    overwrite: bool = False,
) -> Division:
    """Write ``train.extxyz``, ``validation.extxyz`` and ``test.extxyz`` (what is left), and ``split.json`` with what was done.

    Frames of an extxyz file are copied as they are, with everything they say; other formats become extxyz. No geometry is in two
    parts: equal ones stay together, and where groups do not allow that, those of the later part are left out.

    Args:
      path: the file.
      folder: where to.
      train, validation: numbers of structures, or fractions of all there are.
      by: "random"; "blocks:N", N consecutive structures stay together, for trajectories; "formula", all of one composition; or a
        key of the comment lines of extxyz, such as "config_type": all with the same value.
      seed: decides which.
      overwrite: replace files of an earlier split.

    Raises:
      FileNotFoundError, ValueError: the file cannot be read, or is one of those to be written; more structures asked for than
        there are; an unknown ``by``.
      FileExistsError: there are such files, and they are not to be replaced.
    """
    if path.resolve() in {(folder / f"{name}.extxyz").resolve() for name in NAMES}:
        raise ValueError(f"{path} would be replaced by one of its own parts; choose another folder")
    frames, text = _frames(path)
    keys = [geometry_key(frames.structure(index)) for index in range(len(frames))]
    groups = _groups(by, frames, path)
    parts = split(
        frames,
        train=train,
        validation=validation,
        seed=seed,
        groups=_together(keys) if groups is None else groups,
    )
    rows = {
        name: np.sort(part.rows)
        for name, part in zip(NAMES, (parts.train, parts.validation, parts.rest), strict=True)
    }
    kept, left_out = _without_leaks(rows, keys)
    kept = {name: part for name, part in kept.items() if len(part)}
    if isinstance(frames, ExtxyzFrames) and frames.references:
        _check_references(frames, kept, path)
    every = {name: folder / f"{name}.extxyz" for name in NAMES}
    targets = {name: every[name] for name in kept}
    # A test.extxyz of another split beside a train.extxyz of this one would test what was learned.
    stale = [target for name, target in every.items() if name not in kept and target.exists()]
    if stale and not overwrite:
        raise FileExistsError(
            f"{stale[0]} exists, but this split leaves nothing for it; delete it, choose another folder, or have it replaced"
        )
    with ExitStack() as stack:
        # All or none: a split of which one part is missing is worse than no split.
        files = {
            name: stack.enter_context(whole_file(target, overwrite=overwrite))
            for name, target in targets.items()
        }
        for name, part in kept.items():
            for row in part.tolist():
                files[name].write(text(row))
    for target in stale:
        target.unlink()
    record = {
        "file": str(path),
        "by": by,
        "seed": seed,
        "left_out": left_out,
        "rows": {name: part.tolist() for name, part in kept.items()},
    }
    with whole_file(folder / "split.json", overwrite=True) as file:
        json.dump(record, file)
    return Division(
        files=targets,
        counts={name: len(kept.get(name, ())) for name in NAMES},
        left_out=left_out,
        groups=len(set(groups if groups is not None else keys)),
    )


def _frames(path: Path) -> tuple[Structures, Callable[[int], str]]:
    """All structures; and a function that gives the text of one."""
    if path.is_file() and path.suffix in SUFFIXES:
        frames = ExtxyzFrames.of(path, cutoff=1.0)
        return frames, frames.text
    given = open_input(str(path), cutoff=1.0)
    graphs = given.graphs
    frames = graphs if isinstance(graphs, Structures) else Subset(graphs, range(len(graphs)))
    return frames, given.text


def _check_references(frames: ExtxyzFrames, kept: dict[str, np.ndarray], path: Path) -> None:
    for name, part in kept.items():
        if not any(text_has_references(frames.text(row).encode()) for row in part.tolist()):
            raise ValueError(
                f"every part of a file with REF_ labels must have some, or its plain labels would be read, of another method; "
                f"{name} would have none of {path}. Leave structures without REF_ labels out of the file, or divide it otherwise"
            )


def _groups(by: str, frames: Structures, path: Path) -> Sequence[Hashable] | None:
    if by == "random":
        return None
    if by == "formula":
        return formulas(frames)
    if by.startswith("blocks:") and by.removeprefix("blocks:").isdigit():
        return blocks(len(frames), int(by.removeprefix("blocks:"))).tolist()
    if not isinstance(frames, ExtxyzFrames):
        raise ValueError(
            f"by must be random, blocks:N or formula for {path}, received {by!r}; only extxyz has keys"
        )
    found = [frames.atoms(index).info.get(by) for index in range(len(frames))]
    if None in found:
        raise ValueError(
            f"by must be random, blocks:N, formula, or a key that every structure of {path} has in its comment line, received "
            f"{by!r}; structure {found.index(None)} has no such key"
        )
    return [str(value) for value in found]


def _together(keys: list[bytes]) -> list[bytes] | None:
    """Equal geometries as groups; None if there are none, and a plain draw will do."""
    return keys if len(set(keys)) < len(keys) else None


def _without_leaks(
    rows: dict[str, np.ndarray], keys: list[bytes]
) -> tuple[dict[str, np.ndarray], int]:
    """The parts without geometries that an earlier part has."""
    seen: set[bytes] = set()
    kept, left_out = {}, 0
    for name in NAMES:
        own = {keys[row] for row in rows[name].tolist()}
        fresh = np.array([row for row in rows[name].tolist() if keys[row] not in seen], dtype=int)
        left_out += len(rows[name]) - len(fresh)
        kept[name] = fresh
        seen |= own
    return kept, left_out
