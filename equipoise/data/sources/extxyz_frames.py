"""Frames of extxyz files, plain or compressed with xz, one at a time: for sets that are too large to be read at once."""

import io
import lzma
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from equipoise.data.remarks import Said, remarks, spread
from equipoise.data.structures import KINDS, Structure, Structures
from equipoise.graph import NeighbourList
from equipoise.graph.ase import label_names

_KEPT = 2  # files in memory at a time, decompressed
# What a Structure holds, and how it is written.
_STRUCTURE = {"Lattice", "pbc", "Properties", "species", "Z", "pos", "tags", "move_mask"}
# Text of numbers shrinks some tenfold; what is made to fill a memory a thousandfold and more.
_LARGEST_RATIO, _ALWAYS_ALLOWED = 100, 64 << 20  # bytes


class ExtxyzFrames(Structures):
    """The frames of many extxyz files, parsed when they are asked for.

    When this is the wrong tool: for training. A frame of 80 atoms takes a millisecond to parse, and one out of a compressed file
    that is not in memory takes the whole file to decompress. One pass, as `equipoise data convert` makes it, is what it is for.

    Args:
      paths: the files, ``.extxyz`` or ``.extxyz.xz``.
      counts: frames in each of them.
      cutoff: Å, of the edges.
      offsets: eV, subtracted from the energy of each frame; None for nothing.
      free_atoms_only: leave out the forces on atoms that were held (they become missing labels).
      keys: "energy", "forces", "stress" -> where they stand, if not in the usual places.
      references: whether some frames have REF_ labels, so that plain ones count for nothing in any.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        counts: Sequence[int],
        *,
        cutoff: float,
        offsets: np.ndarray | None = None,
        free_atoms_only: bool = False,
        keys: dict[str, str | None] | None = None,
        references: bool = False,
    ) -> None:
        self.paths = [Path(path).absolute() for path in paths]
        self.cutoff = NeighbourList(cutoff).cutoff
        self.offsets, self.free_atoms_only, self.keys = offsets, free_atoms_only, keys or {}
        self.references = references
        self._ends = np.cumsum(counts)
        self._open: OrderedDict[int, tuple[bytes, np.ndarray]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __str__(self) -> str:
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # another process reads for itself

    @classmethod
    def of(
        cls, path: Path, *, cutoff: float, keys: dict[str, str | None] | None = None
    ) -> "ExtxyzFrames":
        """All frames of one file."""
        text = read_text(path)
        count, references = len(frame_starts(text, path)) - 1, text_has_references(text)
        return cls([path], [count], cutoff=cutoff, keys=keys, references=references)

    def text(self, index: int) -> str:
        """One frame as it stands in its file, with the end of its last line."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[number - 1]) if number else 0)
        text, starts = self._file(number)
        return text[starts[row] : starts[row + 1]].decode("utf-8").rstrip("\n") + "\n"

    def atoms(self, index: int) -> ase.Atoms:
        """One frame as ASE has it."""
        text = self.text(index)
        try:
            return ase.io.read(io.StringIO(text), index=0, format="extxyz")
        except Exception as error:  # ase's readers raise whatever their parsing meets
            raise ValueError(f"frame {index} of {self} cannot be read: {error}") from error

    def structure(self, index: int) -> Structure:
        atoms = self.atoms(index)
        found = Structure.from_ase(atoms, self.keys, references=self.references).centred()
        if self.offsets is not None and found.energy is not None:
            found = Structure(**{**vars(found), "energy": found.energy - self.offsets[index]})
        return found.free() if self.free_atoms_only else found

    def labels(self) -> dict[str, str]:
        if len(self.paths) == 1:
            return labels_in_text(self._file(0)[0], self.keys)
        known, names = self.structure(0), label_names(self.keys, self.references)
        return {kind: str(names[kind]) for kind in KINDS if known.knows(kind)}

    def remarks(self) -> list[str]:
        said = [Said.by_comment(self.text(row).split("\n", 2)[1]) for row in spread(len(self))]
        return remarks(said, self.keys, references=self.references, where=str(self))

    def contents(self) -> str:
        return f"found are {', '.join(sorted(self.names())) or 'positions only'}"

    def names(self) -> set[str]:
        """What frames say beside their geometry, tags and held atoms: the keys of comment lines, and the columns."""
        found: set[str] = set()
        for index in range(len(self)):
            known = key_val_str_to_dict(self.text(index).split("\n", 2)[1])
            found |= known.keys()
            found |= {*str(known.get("Properties", "")).split(":")[::3]}
        return found - _STRUCTURE

    def _file(self, number: int) -> tuple[bytes, np.ndarray]:
        """The text of a file and where its frames begin; the last ones used stay in memory."""
        if number not in self._open:
            text = read_text(self.paths[number])
            starts = frame_starts(text, self.paths[number])
            first = int(self._ends[number - 1]) if number else 0
            if len(starts) - 1 != self._ends[number] - first:
                raise ValueError(
                    f"{self.paths[number]} must hold {self._ends[number] - first} frames, received {len(starts) - 1}; it is "
                    f"damaged, or belongs to another list"
                )
            self._open[number] = text, starts
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


def read_text(path: Path) -> bytes:
    """A file, decompressed if it ends in .xz.

    Raises:
      ValueError: it is cut short, no xz file, or one that would fill the memory.
    """
    if path.suffix != ".xz":
        return path.read_bytes()
    try:
        with lzma.open(path) as file:
            limit = max(_LARGEST_RATIO * path.stat().st_size, _ALWAYS_ALLOWED)
            text = file.read(limit + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(text) > limit:
        raise ValueError(
            f"{path} is refused: it unpacks to more than {_LARGEST_RATIO} times its size, as files do that are made to fill a "
            f"memory; unpack it yourself if you trust it"
        )
    return text


def text_has_references(text: bytes) -> bool:
    """Whether a frame has a label under its REF_ name, without parsing any."""
    return any(_says(text, kind, f"REF_{kind}") for kind in KINDS)


def labels_in_text(text: bytes, keys: dict[str, str | None]) -> dict[str, str]:
    """Kind of label -> its name in an extxyz file, for those that a frame has, without parsing any."""
    names = label_names(keys, text_has_references(text))
    return {
        kind: name for kind, name in names.items() if name is not None and _says(text, kind, name)
    }


def _says(text: bytes, kind: str, name: str) -> bool:
    pattern = rb'[=":]%s:R:3' if kind == "forces" else rb'\s"?%s"?\s*='
    # The first question is fast, and settles it for most names that are not there.
    return name.encode() in text and re.search(pattern % re.escape(name.encode()), text) is not None


def frame_starts(text: bytes, path: Path) -> np.ndarray:
    """Where the frames of an extxyz file begin, and where the last one ends: [frames + 1].

    Raises:
      ValueError: a frame does not begin with its number of atoms, or is cut short.
    """
    # Where each line begins; a last line without its end is a line as well.
    lines = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    lines = np.concatenate([[0], lines])
    if lines[-1] != len(text):
        lines = np.append(lines, len(text))
    starts, line = [0], 0
    while line < len(lines) - 1:
        head = text[lines[line] : lines[line + 1]].strip()
        if not head and not text[lines[line] :].strip():
            break  # blank lines at the end
        if not head.isdigit() or line + int(head) + 2 >= len(lines):
            raise ValueError(
                f"{path} is no extxyz file, or cut short: frame {len(starts) - 1}, line {line + 1}"
            )
        line += int(head) + 2
        starts.append(int(lines[line]))
    return np.array(starts)
