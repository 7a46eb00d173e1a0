"""Data sets for a terminal: which there are, what one is, what is in one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from rich.table import Table

from equipoise.data import Source
from equipoise.data.survey import Survey


def sources_table(sources: Iterable[Source]) -> Table:
    """One row per published data set."""
    table = Table(caption="equipoise data info NAME tells more", caption_justify="left")
    for heading in ("name", "what", "subsets", "structures in each", "theory", "here"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "name")
    for source in sources:
        known = [each.structures for each in source.variants]
        low, high = (min(known), max(known)) if None not in known else (None, None)
        number = "" if low is None else f"{low:,}" if low == high else f"{low:,} to {high:,}"
        theories = {source.theory_of(each) for each in source.variants}
        table.add_row(
            source.name,
            source.title.partition(" (")[0],
            str(len(source.variants)) if len(source.variants) > 1 else "",
            number,
            source.theory.partition(" (")[0] if len(theories) == 1 else "differs",
            _here(source),
        )
    return table


def source_tables(source: Source) -> Iterable[Table]:
    """Everything that is known of a published data set: facts, then subsets."""
    rows = [
        ("name", source.name),
        ("title", source.title),
        ("theory", source.theory),
        ("units", f"{source.units} (read as eV, eV/Å)"),
        ("labels", source.labels),
        ("periodic", "yes" if source.periodic else "no"),
        ("licence", source.licence),
        ("cite", source.citation),
        ("homepage", source.homepage),
        ("subset", source.subset + (f"; default: {source.default}" if source.default else "")),
        ("splits", source.splits),
        ("notes", source.notes),
        ("shipped", source.shipped),
        ("folder", str(source.folder())),
    ]
    rows += [(f"target {name}", meaning) for name, meaning in source.targets.items()]
    yield _facts((name, value) for name, value in rows if value)
    if len(source.variants) > 1:
        columns = {
            "name": [each.name for each in source.variants],
            "structures": [_number(each.structures) for each in source.variants],
            "trained on": [_number(each.training) for each in source.variants],
            "theory": [each.theory for each in source.variants],
            "note": [each.note for each in source.variants],
        }
        columns = {heading: cells for heading, cells in columns.items() if any(cells)}
        table = Table(title="subsets", title_justify="left")
        for heading in columns:
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        yield table
    files = [*source.files, *(remote for each in source.variants for remote in each.files)]
    if files:
        table = Table(title="files", title_justify="left")
        for heading in ("name", "size", "checksum", "from"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for remote in dict.fromkeys(files):
            size = size_text(remote.size) if remote.size else ""
            table.add_row(remote.name, size, remote.digest or "unknown", remote.url)
        yield table


def survey_table(survey: Survey, *, name: str, labels: dict[str, str], theory: str | None) -> Table:
    """What is in a data set."""
    found, report = survey.statistics, survey.report
    symbols = {z: chemical_symbols[z] for z in survey.elements}
    named = "".join(f", {kind} under {key!r}" for kind, key in labels.items() if key != kind)
    atoms = survey.atoms
    rows = [
        ("data set", name),
        ("structures", f"{survey.structures:,}" + _looked(survey)),
        ("labels", f"{report.energy:,} energy, {report.forces:,} forces, {report.stress:,} stress{named}"),
        ("theory", theory or ""),
        ("atoms", f"{atoms.min()} to {atoms.max()}, {found.mean_atoms:.4g} on average"),
        ("compositions", f"{survey.formulas:,}"),
        ("periodic", {0: "no", survey.looked_at: "yes"}.get(survey.periodic, f"{survey.periodic:,} of them")),
        (
            "elements",
            "  ".join(
                f"{symbols[z]} {number:,} atoms in {there:,}"
                for z, (number, there) in survey.elements.items()
            ),
        ),
        ("neighbours", f"{found.mean_neighbours:.4g} per atom within {survey.cutoff:g} Å"),
    ]  # fmt: skip
    if survey.distances.size:
        rows.append(("shortest distance", f"{survey.distances.min():.3f} Å"))
    known = survey.energies[~np.isnan(survey.energies)]
    if known.size:
        references = zip(found.elements, found.reference_energies, strict=True)
        rows.append(
            (
                "reference energies",
                "  ".join(f"{symbols[z]} {e:.4f}" for z, e in references) + "  eV (a fit)",
            )
        )
        rows.append(
            ("energy beyond them", f"{1000 * known.std():.4g} meV per atom (standard deviation)")
        )
    if survey.forces.size:
        rows.append(
            (
                "forces",
                f"{1000 * found.force_rms:.4g} meV/Å rms per component, longest {survey.forces.max():.3g} eV/Å",
            )
        )
    return _facts((name, value) for name, value in rows if value)


def size_text(number: int) -> str:
    """Bytes, for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"


def _number(count: int | None) -> str:
    return f"{count:,}" if count else ""


def _looked(survey: Survey) -> str:
    if survey.looked_at == survey.structures:
        return ""
    return f", of which {survey.looked_at:,} were looked at (--all for every one)"


def _here(source: Source) -> str:
    if _anything(source.folder()):
        return "fetched"
    return f"shipped: {source.shipped}" if source.shipped else ""


def _anything(folder: Path) -> bool:
    return folder.is_dir() and any(
        path.is_file() and not path.name.startswith(".") for path in folder.rglob("*")
    )


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
