"""Every published data set by its name, and one way to read any of them."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from equipoise.data.download import download
from equipoise.data.sources import (
    acac,
    lips,
    md17,
    md17_ccsd,
    md22,
    mlearn,
    oc20_is2re,
    oc20_s2ef,
    qm9,
    rmd17,
    threebpa,
    water,
)
from equipoise.data.sources.arrays import Joined
from equipoise.data.sources.division import Counts, divide
from equipoise.data.sources.record import Query, Source, Splits, Variant
from equipoise.data.unpack import unpack
from equipoise.graph import Graph

SOURCES: dict[str, Source] = {
    module.SOURCE.name: module.SOURCE
    for module in (
        rmd17, md17, md17_ccsd, md22, qm9, threebpa, acac, water, lips, mlearn, oc20_s2ef, oc20_is2re
    )
}  # fmt: skip


def find_source(name: str) -> Source:
    """The record of a data set.

    Raises:
      ValueError: there is none of this name.
    """
    if name not in SOURCES:
        raise ValueError(
            f"unknown data set {name!r}{_did_you_mean(name, SOURCES)}; there are {', '.join(SOURCES)}"
        )
    return SOURCES[name]


def find_variants(source: Source, subset: str | None) -> list[Variant]:
    """The subsets that are meant: one name, several with commas between them, "all", or None for the default.

    Raises:
      ValueError: an unknown name; no name where one is needed; subsets of different theory.
    """
    names = {variant.name: variant for variant in source.variants}
    if subset is None and not source.default:
        raise ValueError(
            f"{source.title} needs a subset, {source.subset}: {', '.join(names)}; received none"
        )
    wanted = (subset or source.default).split(",")
    if wanted == ["all"] and "all" not in names:
        wanted = list(names)
    for name in wanted:
        if name not in names:
            raise ValueError(
                f"{source.title} has no subset {name!r}{_did_you_mean(name, names)}; there are {', '.join(names)}"
            )
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"each subset must be named once, received {subset!r}")
    return [names[name] for name in wanted]


def read_source(
    name: str,
    *,
    cutoff: float,
    subset: str | None = None,
    folder: str | Path | None = None,
    split: int = 1,
    target: str | None = None,
    counts: Counts | None = None,
) -> Splits:
    """Read a published data set, divided as is official or usual for it (`equipoise data info NAME` says how).

    Nothing is downloaded here. Of several subsets each is divided by itself and gives the numbers asked for; the parts are joined.

    Args:
      name: a key of ``SOURCES``.
      cutoff: Å, of the graphs.
      subset: which part: one name, several with commas between them, or "all"; None for the default of the data set.
      folder: where its files are, or one file; None for where ``fetch_source`` puts them.
      split: number of the official split, for a data set that has several.
      target: which label is the energy, for a data set that has several; None for the first.
      counts: how many structures are wanted for what, and which, where no division is official; None for the usual ones.

    Raises:
      FileNotFoundError: files are missing; the message says how to get them.
      ValueError: an unknown name, subset, split or target; more structures asked for than there are; damaged files; subsets that
        differ in theory, whose energies cannot be learned together.
    """
    source = find_source(name)
    variants = find_variants(source, subset)
    if target is not None and target not in source.targets:
        known = ", ".join(source.targets) or "none"
        raise ValueError(f"{source.title} has the targets {known}, received {target!r}")
    target = target or next(iter(source.targets), "")
    if split != 1 and source.official_splits == 1:
        raise ValueError(
            f"{source.title} has no numbered splits, received split {split}; leave it out"
        )
    theory = _one_theory(source, variants, target)
    divided, apart = [], False
    for variant in variants:
        query = Query(
            variant=variant,
            folder=None if folder is None else Path(folder),
            cutoff=cutoff,
            split=split,
            target=target,
        )
        where = f"{name}:{variant.name}"
        parts = source.read(query)
        apart = apart or parts.apart
        usual = {"training": variant.training, "validation": variant.validation}
        divided.append(divide(parts, counts or Counts(), where=where, **usual))
    train, validation, test = (_joined(same) for same in zip(*divided, strict=True))
    names = ", ".join(variant.name for variant in variants)
    return Splits(
        train=train,
        validation=validation,
        test=test,
        name=f"{source.title} {names}" if len(source.variants) > 1 else source.title,
        theory=theory,
        target=target,
        apart=apart,
    )


def fetch_source(
    name: str,
    *,
    subset: str | None = None,
    folder: str | Path | None = None,
    console: Console | None = None,
) -> Path:
    """Download a data set, or some subsets of it, and unpack its archives; what is there already is only checked.

    Args:
      name, subset: as for :func:`read_source`.
      folder: where to; None for the cache (:func:`equipoise.data.download.cache_folder`).
      console: where progress is shown; None for silence.

    Returns:
      the folder.

    Raises:
      DownloadError: a file could not be had; the message says how to get it by hand.
      ValueError: an unknown name or subset; a wrong checksum; an archive that is damaged or hostile.
      OSError: the disk is full or may not be written.
    """
    source = find_source(name)
    where = source.folder() if folder is None else Path(folder)
    wanted = [source.files_of(variant) for variant in find_variants(source, subset)]
    for remote in dict.fromkeys(remote for files in wanted for remote in files):
        path = download(remote, where, console=console)
        if remote.unpack:
            unpack(path, where, console=console)
    return where


def _joined(parts: Sequence[Sequence[Graph]]) -> Sequence[Graph]:
    some = [part for part in parts if len(part)]
    return Joined(some) if len(some) > 1 else (some or parts)[0]


def _one_theory(source: Source, variants: list[Variant], target: str) -> str:
    theories = {variant.name: source.theory_of(variant, target) for variant in variants}
    if len(set(theories.values())) > 1:
        listed = "; ".join(f"{name}: {theory}" for name, theory in theories.items())
        raise ValueError(
            f"subsets of {source.title} were computed differently ({listed}): their energies have different zeros and cannot be "
            f"learned together; choose one"
        )
    return next(iter(theories.values()))


def _did_you_mean(word: str, known) -> str:
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""
