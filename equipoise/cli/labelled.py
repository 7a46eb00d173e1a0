"""Labelled structures to measure a potential on, as the options and the recipe in a model file name them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io

from equipoise.cli.learn import AS_OPTIONS
from equipoise.data import SOURCES, check_energies, find_source, label_keys, read
from equipoise.graph import Graph
from equipoise.potentials import describe
from equipoise.train import DataSection, make_recipe, read_test
from equipoise.train.datasets import first


@dataclass(frozen=True)
class Labelled:
    """What models are measured on."""

    name: str
    structures: Callable[[float], Sequence[Graph]]  # with edges up to a cutoff, Å
    labels: dict[str, str]  # kind -> key in the file, if one is read
    file: Path | None
    count: int | None = None  # of the first structures that are meant, None for all
    section: DataSection | None = None  # of a published data set


def labelled(
    model: str, data: str | None, data_folder: Path | None, keys: dict[str, str | None]
) -> Labelled:
    """The structures to evaluate on, as the options and the recipe in the model file say."""
    section, own = trained_on(model), data is None
    if data is None:
        if section is None:
            raise ValueError(f"{model} does not say what it was trained on; give --data")
        if section.source == "file" and section.test is None:
            raise ValueError(f"the recipe of {model} names no test structures; give --data")
        data = section.test if section.source == "file" else section.title
    count = section.test_count if own and section is not None and section.source == "file" else None
    name, colon, subset = data.partition(":")
    if (colon or name in SOURCES) and not Path(data).exists():
        return _published(find_source(name).name, subset, section, data_folder, keys)
    if data_folder is not None:
        raise ValueError(f"--data-folder is for published data sets, received --data {data}")
    file = Path(data)
    if file.suffix == ".npz":
        _refuse_keys(keys, data)
    elif section is not None:
        keys = {name: key or getattr(section, name) for name, key in keys.items()}

    def structures(cutoff: float) -> Sequence[Graph]:
        graphs = first(read(file, cutoff=cutoff, **keys), count)
        check_energies(graphs, where=data)
        return graphs

    return Labelled(data, structures, label_keys(file, **keys), file, count)


def _published(
    source: str,
    subset: str,
    section: DataSection | None,
    folder: Path | None,
    keys: dict[str, str | None],
) -> Labelled:
    """The test structures of a published data set: those of the training, if a model was trained on the same."""
    wanted = {"source": source, "subset": subset} if subset else {"source": source}
    official = make_recipe({"data": wanted}).data
    _refuse_keys(keys, official.title)
    if section is not None and section.title == official.title:
        official = section  # another split would hold structures of the training set
    if folder is not None:
        official = official.model_copy(update={"folder": str(folder)})

    def structures(cutoff: float) -> Sequence[Graph]:
        graphs = read_test(official, cutoff=cutoff)
        if len(graphs) == 0:
            raise ValueError(
                f"{official.title} has no test structures of its own; give a file of others with --data"
            )
        return graphs

    return Labelled(official.title, structures, {}, None, section=official)


def trained_on(model: str) -> DataSection | None:
    """The data section of the recipe that a model file carries, as it was when the model was trained."""
    recipe = (describe(model).get("extra") or {}).get("recipe")
    # Unchecked: it was checked then, and what is refused today may have been accepted.
    return None if recipe is None else DataSection.model_construct(**recipe["data"])


def _refuse_keys(keys: dict[str, str | None], data: str) -> None:
    given = [f"{AS_OPTIONS[name]} {key}" for name, key in keys.items() if key is not None]
    if given:
        raise ValueError(
            f"the labels of {data} have fixed names, received {' and '.join(given)}; leave that out"
        )


def molecules_in(file: Path | None, key: str | None, limit: int | None) -> list[str] | None:
    """What each structure is called under a key of an extxyz file; None without a key."""
    if key is None:
        return None
    if file is None or not file.is_file() or file.suffix == ".npz":
        raise ValueError(f"--molecule-key is for files that ASE reads, received {key!r} for {file}")
    names = []
    for index, atoms in enumerate(ase.io.iread(file, index=slice(0, limit))):
        if key not in atoms.info:
            raise ValueError(
                f"structure {index} of {file} has no {key!r}; it has {', '.join(sorted(atoms.info)) or 'nothing of the kind'}"
            )
        names.append(str(atoms.info[key]))
    return names
