"""The command `equipoise`: train, evaluate, simulate, relax and report without writing Python.

Commands only translate between a terminal and the library: every one is a few calls that a script
could make as well.
"""

# Importing a module of commands is what adds them to the app, in the order they have in --help.
# isort: off
from equipoise.cli import learn as learn
from equipoise.cli import measure as measure
from equipoise.cli import data as data
from equipoise.cli import data_files as data_files
from equipoise.cli import label as label
from equipoise.cli import move as move
from equipoise.cli import quickstart as quickstart
from equipoise.cli import sweep as sweep
from equipoise.cli import show as show
from equipoise.cli import zoo as zoo

# isort: on
from equipoise.cli.app import app as app
