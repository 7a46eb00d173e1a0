"""The app itself: global options, and what becomes of errors.

Results go to stdout, everything else to stderr. Errors that a user can cause (ValueError, OSError,
RuntimeError of the library) end as one red message and exit code 1; `equipoise --debug ...` shows
where they come from.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended

results = Console()
messages = Console(stderr=True)


class _Commands(TyperGroup):
    """All commands, with the errors of the library made readable."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # RuntimeErrors by descent, but no errors
            raise
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted", style="yellow")
            raise typer.Exit(INTERRUPTED) from interrupt
        except (ValueError, OSError, RuntimeError) as error:
            if ctx.params.get("debug"):
                raise
            # The library speaks to programmers; here the same thing is an option.
            message = str(error).replace("resume=False", "--fresh")
            say(f"error: {message}", style="red")
            raise typer.Exit(1) from error


app = typer.Typer(
    name="equipoise",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Conservative machine-learned force fields whose network is a deep equilibrium model.\n\n"
    "New here? [bold]equipoise quickstart[/] trains a small potential for ethanol, measures it, "
    "simulates with it and writes a report, in about six minutes on two CPU cores.",
    epilog="Units everywhere: eV, Å, fs, K; forces in eV/Å, stress in eV/Å³. Ctrl-C stops training "
    "and dynamics safely: the same command goes on where it stopped.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"equipoise {installed_version('equipoise')}")
        except PackageNotFoundError:
            print("equipoise (not installed: run from a source tree)")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback when something goes wrong.")
    ] = False,
) -> None:
    pass


def say(text: str, *, style: str | None = None) -> None:
    """Prints to stderr."""
    # Paths and commands are there to be copied: no line breaks, and "[x]" in a name is no markup.
    messages.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
