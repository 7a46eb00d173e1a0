"""The `data` section of a recipe, read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from equipoise.data import Report, label_keys, read, rmd17, split, statistics
from equipoise.graph import Graph
from equipoise.potentials import Statistics
from equipoise.train.config import DataSection


@dataclass(frozen=True)
class Datasets:
    """Structures for training, for choosing the best weights, and for testing."""

    train: list[Graph] = field(repr=False)
    validation: list[Graph] = field(repr=False)
    test: list[Graph] = field(repr=False)  # empty if the recipe names none
    name: str
    labels: dict[str, str] = field(default_factory=dict)  # kind -> key in the file, if one was read

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
        if report.stress:
            text += f"; {report.stress} with stress, which is not trained on"
        return text


def read_datasets(section: DataSection, *, cutoff: float, test: bool = True) -> Datasets:
    """Read the structures that a recipe names, as graphs with edges up to `cutoff` (Angstrom).

    `test=False` leaves the test file of `source: file` unread: training does not need it.

    **Raises** `ValueError` for unknown molecules, files without labels, and a training set
    that is too small for `validation_count`; `FileNotFoundError` for a missing file.
    """
    if section.source == "rmd17":
        official = rmd17(section.molecule, section.split, folder=section.folder, cutoff=cutoff)
        train, validation = _hold_out(official.train, section)
        name = f"rMD17 {section.molecule}, split {section.split:02d}"
        return Datasets(train=train, validation=validation, test=official.test, name=name)

    assert section.train is not None  # the section checks it
    train = _read(section.train, section, cutoff)
    validation = _read(section.validation, section, cutoff)
    if not validation:
        train, validation = _hold_out(train, section)
    return Datasets(
        train=train,
        validation=validation,
        test=_read(section.test, section, cutoff) if test else [],
        name=section.train,
        labels=label_keys(
            section.train, energy_key=section.energy_key, forces_key=section.forces_key
        ),
    )


def read_test(section: DataSection, *, cutoff: float) -> list[Graph]:
    """The test structures that a recipe names, empty if it names none; no other file is read.

    **Raises** as `read_datasets` does.
    """
    if section.source == "rmd17":
        return rmd17(section.molecule, section.split, folder=section.folder, cutoff=cutoff).test
    return _read(section.test, section, cutoff)


def training_statistics(graphs: Sequence[Graph]) -> Statistics:
    """Scales and offsets of the training set, as the record that `build` takes."""
    # Two records with the same fields: data may not know of potentials, nor they of it.
    return Statistics(**asdict(statistics(graphs)))


def _read(path: str | None, section: DataSection, cutoff: float) -> list[Graph]:
    if path is None:
        return []
    return read(path, cutoff=cutoff, energy_key=section.energy_key, forces_key=section.forces_key)


def _hold_out(graphs: list[Graph], section: DataSection) -> tuple[list[Graph], list[Graph]]:
    count = section.validation_count
    if len(graphs) <= count:
        raise ValueError(
            f"validation_count must be less than the {len(graphs)} structures there are, "
            f"received {count}"
        )
    parts = split(graphs, train=len(graphs) - count, validation=count, seed=section.validation_seed)
    return parts.train, parts.validation
