"""The `data` section of a recipe, read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from equipoise.data import (
    SOURCES,
    Counts,
    Report,
    Rmd17,
    Splits,
    one_theory,
    read_source,
    rmd17,
    split,
    statistics,
)
from equipoise.data.inputs import Input, open_file
from equipoise.data.sources.division import USUAL_VALIDATION
from equipoise.graph import Graph
from equipoise.potentials import Statistics
from equipoise.train.config import DataSection


@dataclass(frozen=True)
class Datasets:
    """Structures for training, for choosing the best weights, and for testing: in memory, or made when they are asked for."""

    train: Sequence[Graph] = field(repr=False)
    validation: Sequence[Graph] = field(repr=False)
    test: Sequence[Graph] = field(repr=False)  # empty if the recipe names none
    name: str
    labels: dict[str, str] = field(default_factory=dict)  # kind -> key in the file, if one was read
    theory: str | None = None  # how the labels were computed, if that is known

    def __str__(self) -> str:
        """How many structures there are, and which labels were really found."""
        report = Report.of(self.train)
        text = (
            f"{self.name}: {len(self.train)} train ({report.energy} with energy, "
            f"{report.forces} with forces), {len(self.validation)} validation, "
            f"{len(self.test)} test"
        )
        if self.labels:
            text += f"; labels: {', '.join(f'{k} from {v!r}' for k, v in self.labels.items())}"
        if self.theory:
            text += f"; {self.theory}"
        if report.stress:
            text += f"; {report.stress} with stress, learned with training.stress_weight"
        return text


def read_datasets(section: DataSection, *, cutoff: float, test: bool = True) -> Datasets:
    """Read the structures that a recipe names, as graphs with edges up to `cutoff` (Angstrom).

    `test=False` leaves the test file of `source: file` unread: training does not need it.

    **Raises** `ValueError` for unknown data sets and subsets, files without labels, energies that are not in eV, structures of
    different levels of theory, and a training set that is too small for `validation_count`; `FileNotFoundError` for a missing file.
    """
    if section.is_one_molecule:
        official = _rmd17(section, cutoff)
        train, validation = _hold_out(official.train, section)
        return Datasets(
            train=train,
            validation=validation,
            test=first(official.test, section.test_count),
            name=f"rMD17 {section.chosen}, split {section.split:02d}",
            theory=SOURCES["rmd17"].theory_of(SOURCES["rmd17"].variants[0], section.target or ""),
        )
    if section.source != "file":
        parts = _published(section, cutoff)
        name = parts.name + (f", {section.target}" if section.target else "")
        return Datasets(
            train=parts.train,
            validation=parts.validation,
            test=parts.test,
            name=name,
            theory=parts.theory,
        )
    assert section.train is not None  # the section checks it
    files = [section.train, section.validation, section.test if test else None]
    theory = one_theory(Path(path) for path in files if path is not None and Path(path).exists())
    given = _open(section.train, section, cutoff)
    train = given.graphs
    if section.validation is None:
        train, validation = _hold_out(train, section)
    else:
        validation = _open(section.validation, section, cutoff).graphs
        train = train if section.train_count is None else _some(train, section)
    return Datasets(
        train=train,
        validation=validation,
        test=read_test(section, cutoff=cutoff) if test else [],
        name=section.title,
        labels=given.labels,
        theory=theory,
    )


def read_test(section: DataSection, *, cutoff: float) -> Sequence[Graph]:
    """The test structures that a recipe names, empty if it names none; no other file is read.

    **Raises** as `read_datasets` does.
    """
    if section.is_one_molecule:
        return first(_rmd17(section, cutoff).test, section.test_count)
    if section.source != "file":
        return _published(section, cutoff).test
    if section.test is None:
        return []
    return first(_open(section.test, section, cutoff).graphs, section.test_count)


def training_statistics(graphs: Sequence[Graph]) -> Statistics:
    """Scales and offsets of the training set, as the record that `build` takes."""
    # Two records with the same fields: data may not know of potentials, nor they of it.
    return Statistics(**asdict(statistics(graphs)))


def _rmd17(section: DataSection, cutoff: float) -> Rmd17:
    target = {} if section.target is None else {"target": section.target}
    return rmd17(section.chosen, section.split, folder=section.folder, cutoff=cutoff, **target)


def _published(section: DataSection, cutoff: float) -> Splits:
    return read_source(
        section.source,
        subset=section.chosen,
        folder=section.folder,
        split=section.split,
        target=section.target,
        cutoff=cutoff,
        counts=Counts(
            train=section.train_count,
            validation=section.validation_count,
            test=section.test_count,
            seed=section.seed,
            validation_seed=section.validation_seed,
        ),
    )


def _open(path: str, section: DataSection, cutoff: float) -> Input:
    return open_file(
        Path(path),
        cutoff=cutoff,
        energy_key=section.energy_key,
        forces_key=section.forces_key,
        stress_key=section.stress_key,
    )


def _hold_out(
    graphs: Sequence[Graph], section: DataSection
) -> tuple[Sequence[Graph], Sequence[Graph]]:
    count = USUAL_VALIDATION if section.validation_count is None else section.validation_count
    if len(graphs) <= count:
        raise ValueError(
            f"validation_count must be less than the {len(graphs)} structures there are, "
            f"received {count}"
        )
    parts = split(graphs, train=len(graphs) - count, validation=count, seed=section.validation_seed)
    _check_train_count(section, len(parts.train))
    few = section.train_count is not None  # in random order, so these are a random few
    return parts.train[: section.train_count] if few else parts.train, parts.validation


def _some(graphs: Sequence[Graph], section: DataSection) -> Sequence[Graph]:
    """As many training structures as wanted, where the validation structures are a file of their own."""
    _check_train_count(section, len(graphs))
    return split(graphs, train=section.train_count, validation=0, seed=section.seed).train


def first(graphs: Sequence[Graph], count: int | None) -> Sequence[Graph]:
    """The test structures, or as many as wanted.

    **Raises** `ValueError` if there are fewer.
    """
    if count is None or not len(graphs):
        return graphs
    if count > len(graphs):
        raise ValueError(
            f"test_count must be at most the {len(graphs)} test structures there are, received {count}"
        )
    return graphs[:count]


def _check_train_count(section: DataSection, there: int) -> None:
    if section.train_count is not None and section.train_count > there:
        raise ValueError(
            f"train_count must be at most the {there} structures that are left to train on, received {section.train_count}"
        )
