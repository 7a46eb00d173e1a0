"""`python -m equipoise`: the same as the command `equipoise`."""

from equipoise.cli import app

app(prog_name="equipoise")
