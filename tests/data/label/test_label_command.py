"""`equipoise data label`: what a terminal sees."""

import json
import re

import ase.io
import pytest
from ase.build import bulk, molecule
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.cli import label as command

SPRINGS = "tests.data.label.calculators:Springs"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, in_turn):
    """A working folder with two structures, and workers without processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "Processes", lambda workers, threads: in_turn(workers=workers))
    ase.io.write("two.xyz", [molecule("H2O"), molecule("NH3")])
    ase.io.write("copper.xyz", [bulk("Cu", cubic=True)])
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["data", "label", *map(str, arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def message(*arguments):
    """What a failing command says: one line, without a traceback."""
    result = run(*arguments, code=1)
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_structures_are_labelled_into_a_folder_named_after_them(here):
    result = run("copper.xyz", "--calculator", "emt")
    assert "1 of 1" in result.stdout
    assert "data.train=labels/copper-emt/labels.extxyz" in result.stderr.replace("\n", "")
    [frame] = ase.io.read("labels/copper-emt/labels.extxyz", ":")
    assert frame.info["REF_stress"].shape == (6,)


def test_dynamics_take_their_options_and_the_calculator_its_keywords(here):
    options = "--temperature 300 --temperature 450 --frames 2 --stride 3 --equilibration 0 --seed 5"
    run("two.xyz", "--calculator", SPRINGS, *options.split(), "--index", "0", "memory=true")
    request = json.loads((here / "labels/two-Springs/record.json").read_text())["request"]
    assert request["keywords"] == {"memory": True}
    assert (request["seed"], request["structures"]) == (5, 1)
    assert request["langevin"]["temperatures_k"] == [300.0, 450.0]
    assert (request["langevin"]["frames"], request["langevin"]["stride"]) == (2, 3)
    assert len(ase.io.read("labels/two-Springs/labels.extxyz", ":")) == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("4", 4),
        ("true", True),
        ("null", None),
        ("water", "water"),
        ("[alpb, water]", ["alpb", "water"]),
    ],
)
def test_keywords_have_the_type_that_they_look_like(text, value):
    assert command._keywords([f"k={text}"]) == {"k": value}


def test_failures_are_counted_and_the_exit_code_tells(here):
    again = ("two.xyz", "--calculator", SPRINGS, "--max-failures", "0.6", 'trouble={"N": raise}')
    result = run(*again, code=3)
    assert "1 of 2 structures failed" in result.stderr
    assert "structure 1 failed: RuntimeError: no convergence" in result.stderr
    assert "1 of 2" in result.stdout
    assert "trying 1 structures again" in run(*again, "--retry", code=3).stderr
    assert "more than the limit of 10 %" in message(*again, "--max-failures", "0.1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("none.xyz", "there is no file none.xyz"),
        ("two.xyz --calculator gfn3", "the calculator must be one of"),
        ("two.xyz --calculator emt oops", "must be written KEY=VALUE, received 'oops'"),
        ("two.xyz --calculator emt cutof=3", "EMT knows no keyword 'cutof'"),
        ("two.xyz --calculator no_module_:make", "there is no module 'no_module_'"),
        ("two.xyz --calculator emt --frames 10 --max-gap 3", "--frames, --max-gap need dynamics"),
        ("two.xyz --calculator emt --temperature -5", "temperatures_k must be finite and larger"),
        ("two.xyz --calculator emt --index 1:1", "nothing to label"),
        ("two.xyz --calculator emt --max-failures 5", "a fraction from 0 to 1, received 5"),
    ],
)
def test_mistakes_are_explained_in_one_line(arguments, says):
    assert says in message(*arguments.split())


def test_another_request_in_the_folder_needs_fresh(here):
    run("two.xyz", "--calculator", SPRINGS, "--folder", "mine")
    says = message("copper.xyz", "--calculator", "emt", "--folder", "mine")
    assert "calculator was 'tests.data.label.calculators:Springs' and is now 'emt'" in says
    assert "--fresh" in says
    run("copper.xyz", "--calculator", "emt", "--folder", "mine", "--fresh")
    assert len(ase.io.read("mine/labels.extxyz", ":")) == 1


def test_help_says_what_it_does():
    text = re.sub(r"\s+", " ", run("--help").stdout)
    for word in ("GFN2-xTB", "--temperature", "--scheduler", "--retry", "labels.extxyz"):
        assert word in text
