"""What is to be known of a published data set, and what reading one gives.

Every data set of this folder ends in one record, `SOURCE`. The command line and recipes take all that they say of it from there.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from equipoise.data.download import Remote, cache_folder
from equipoise.graph import Graph


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the things that a data set consists of and that are used by themselves: a molecule, an element, a size.

    Attributes:
      name: what it is chosen by.
      structures: how many there are in all; None where nobody says.
      training: how many of them are usually trained on, those included that choose the best weights. 0: the official files decide.
      validation: how many of those usually choose the best weights. 0: nobody says.
      theory: how its labels were computed, where that differs from the rest of the data set.
      files: what has to be downloaded for it, beside the files of the whole data set.
      note: what else one should know.
    """

    name: str
    structures: int | None = None
    training: int = 0
    validation: int = 0
    theory: str = ""
    files: tuple[Remote, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is wanted of a data set.

    Attributes:
      variant: which part of it.
      folder: where its files are, or one file; None for where downloads go.
      cutoff: Å, of the graphs.
      split: number of the official split, for data sets that have several.
      target: which of several labels, by name.
    """

    variant: Variant
    folder: Path | None
    cutoff: float
    split: int = 1
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the files hold, before anything is divided.

    Attributes:
      train: the official training structures; all there are, if there is no official division.
      test, validation: the official ones; None where they are to be taken from ``train``.
      groups: for each structure of ``train``, what it belongs to, where structures of one kind (a relaxation, say) must not be
        divided between parts.
    """

    train: Sequence[Graph] = field(repr=False)
    test: Sequence[Graph] | None = field(default=None, repr=False)
    validation: Sequence[Graph] | None = field(default=None, repr=False)
    groups: Sequence[Hashable] | None = field(default=None, repr=False)

    @property
    def apart(self) -> bool:
        """See :class:`Splits`."""
        return any(each is not None for each in (self.test, self.validation, self.groups))


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Structures to train on, to choose the best weights with, and to test with; in eV and Å.

    Attributes:
      train, validation, test: sequences of single structures, in memory or made when they are asked for. No structure is in two.
      name: for people, such as "MD22 stachyose".
      theory: how the labels were computed.
      target: which label the energy is, where a data set has several (a key of ``Source.targets``).
      apart: whether parts must not be mixed and drawn anew: some are official, or structures belong to groups.
    """

    train: Sequence[Graph] = field(repr=False)
    validation: Sequence[Graph] = field(repr=False)
    test: Sequence[Graph] = field(repr=False)
    name: str
    theory: str
    target: str = ""
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """A published data set: provenance, files, and how it is read.

    Attributes:
      name: what it is called on the command line and in recipes.
      title: its name in the literature.
      theory: level of theory of the labels, with the program where known.
      units: of the files. What is read is always in eV and Å.
      labels: what each structure has, such as "energy, forces".
      periodic: whether structures have a cell.
      licence: of the data; "unknown" where nobody states one.
      citation: what to cite.
      homepage: where it is described.
      subset: what a subset is, such as "a molecule".
      variants: the subsets.
      default: the subset that is read if none is named; empty if one has to be named.
      splits: which division is official or usual.
      official_splits: how many official divisions there are to choose from.
      notes: what else one should know before using it.
      files: to be downloaded whatever the subset.
      targets: name -> meaning, where the energy can be one of several labels; the first is the default.
      target_theory: how they were computed, for those targets that were computed otherwise.
      read: reads one subset; asked through :func:`equipoise.data.read_source`.
      shipped: what of it comes with the package.
    """

    name: str
    title: str
    theory: str
    units: str
    labels: str
    periodic: bool
    licence: str
    citation: str
    homepage: str
    subset: str
    variants: tuple[Variant, ...]
    splits: str
    read: Callable[[Query], Parts]
    default: str = ""
    official_splits: int = 1
    notes: str = ""
    files: tuple[Remote, ...] = ()
    targets: dict[str, str] = field(default_factory=dict)
    target_theory: dict[str, str] = field(default_factory=dict)
    shipped: str = ""

    def theory_of(self, variant: Variant, target: str = "") -> str:
        return self.target_theory.get(target) or variant.theory or self.theory

    def folder(self) -> Path:
        """Where downloads of it go."""
        return cache_folder() / self.name

    def find(self, query: Query, *names: str) -> Path:
        """The file that holds what is wanted: the first of ``names`` that there is, or the one file that ``query`` gives.

        Args:
          query: whose folder is looked into, and the folders inside it.
          names: what the file may be called; patterns such as "md17_ethanol*.npz" are allowed where one file matches.

        Raises:
          FileNotFoundError: it is not there, with the command that fetches it.
          ValueError: a pattern matches several files.
        """
        base = query.folder or self.folder()
        if base.is_file():
            return base
        for name in names:
            found = sorted({*base.glob(name), *base.glob(f"*/{name}")})
            if len(found) > 1:
                raise ValueError(
                    f"{base} holds {', '.join(path.name for path in found)}; give one of these files instead of their folder"
                )
            if found:
                return found[0]
        raise FileNotFoundError(
            f"there is no {names[0]} in {base}. `equipoise data download {self.name} --subset {query.variant.name}` fetches it; "
            f"files that are elsewhere are read with their folder (data.folder in a recipe)"
        )

    def files_of(self, variant: Variant) -> tuple[Remote, ...]:
        return (*self.files, *variant.files)
