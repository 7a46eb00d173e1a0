"""`equipoise data`: what there is to learn from, and making it ready."""

from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli.app import app, messages, results, say
from equipoise.data import SOURCES, fetch_source, find_source, find_variants
from equipoise.report.dataset_tables import size_text, source_tables, sources_table

data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Data sets: list, look at, download, convert, split and label them.",
)
app.add_typer(data_app, name="data")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help=f"A published data set: {', '.join(SOURCES)}.")
]


@data_app.command("list")
def list_command() -> None:
    """The published data sets that can be read, and which of them are here."""
    results.print(sources_table(SOURCES.values()))


@data_app.command("info")
def info_command(name: NameArgument) -> None:
    """Everything about a data set: theory, units, licence, what to cite, splits, files and checksums.

    Example: [dim]equipoise data info md22[/]
    """
    for table in source_tables(find_source(name)):
        results.print(table)


@data_app.command("download")
def download_command(
    name: NameArgument,
    subset: Annotated[
        str | None,
        typer.Option(
            help="Which part, several with commas between them, or all; see [bold]equipoise data info NAME[/]. Default: that "
            "of the data set."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where to; default: $EQUIPOISE_DATA or ~/.cache/equipoise/data, and there NAME."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be fetched, and where to.")
    ] = False,
) -> None:
    """Fetch a data set: resumed where it broke off, checked where checksums are known, unpacked.

    Files fetched by hand are taken as they are: put them where --dry-run says.

    Example: [dim]equipoise data download md22 --subset DHA[/]
    """
    source = find_source(name)
    variants = find_variants(source, subset)
    where = source.folder() if folder is None else folder
    remotes = dict.fromkeys(remote for each in variants for remote in source.files_of(each))
    say(f"{source.title}, {', '.join(each.name for each in variants)}: licence {source.licence}")
    for remote in remotes:
        size = "size unknown" if remote.size is None else size_text(remote.size)
        notes = " ".join(each.note for each in variants if remote in each.files and each.note)
        checksum = remote.digest or "no published checksum"
        say(f"  {where / remote.name}  ({notes or size}; {checksum})\n    from {remote.url}")
    if dry_run:
        return
    path = fetch_source(name, subset=subset, folder=folder, console=messages)
    again = name + (f":{subset}" if subset else "") + (f" --folder {folder}" if folder else "")
    say(f"ready in {path}. Please cite: {source.citation}\nNext:  equipoise data stats {again}")
