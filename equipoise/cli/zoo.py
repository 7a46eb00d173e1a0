"""The commands `zoo list` and `zoo card`: potentials that come with the package."""

from typing import Annotated

import typer

from equipoise.cli.app import app, results
from equipoise.potentials import card as find_card
from equipoise.potentials import cards
from equipoise.report.model_card import markdown, zoo_grid
from equipoise.report.terminal import grid_table

zoo_app = typer.Typer(
    name="zoo",
    no_args_is_help=True,
    help="Potentials that come with the package: wherever a command asks for a model, their names will do.",
)
app.add_typer(zoo_app, name="zoo")


@zoo_app.command("list")
def list_zoo() -> None:
    """List the potentials that come with the package, with their test errors."""
    results.print(grid_table(zoo_grid(list(cards().values()))))


@zoo_app.command("card")
def show_card(
    name: Annotated[str, typer.Argument(help="Name of a potential, such as ethanol.")],
) -> None:
    """Show what a potential was made of, how good it is, and what it cannot do (Markdown).

    Example: [dim]equipoise zoo card ethanol[/]
    """
    try:
        found = find_card(name)
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    # Not through rich: it would break lines of a table, and this may go into a file.
    print(markdown(found), end="")
