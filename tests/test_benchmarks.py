"""Benchmarks run for minutes, so tests do not run them; they must not rot either."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "\ndef main() -> None:" in path.read_text() and path.stem != "peers_side"
)  # peers_side runs in the environments of others, which have no package of benchmarks
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_can_be_started_and_says_how(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.main)
    assert f"python -m benchmarks.{name}" in module.__doc__


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_come_from_a_script_that_is_there(path):
    record = json.loads(path.read_text())
    (name,) = re.findall(r"python -m benchmarks\.(\w+)", record["command"].splitlines()[0])[:1]
    assert name in SCRIPTS
    assert path.with_suffix(".png").exists()
    # Folders of the machine that it ran on mean nothing to anybody.
    assert "/work/" not in path.read_text() and "/tmp/" not in path.read_text()


def test_the_page_knows_them_all():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    missing = [name for name in SCRIPTS if f"`{name}`" not in page and name != "zoo_card"]
    assert not missing
