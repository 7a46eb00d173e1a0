"""Potentials that come with the package: found by name, unharmed, and described truly."""

import re

import pytest

import equipoise
from benchmarks.zoo_card import LARGEST, ZOO, pages
from equipoise.data import read_source
from equipoise.potentials import card, cards, describe, load, zoo
from equipoise.train import evaluate

NAMES = zoo()


def test_names_and_aliases_find_the_same_file():
    assert "rmd17-ethanol" in NAMES
    one, two = load("ethanol"), load("rmd17-ethanol")
    assert all(
        bool((a == b).all()) for a, b in zip(one.parameters(), two.parameters(), strict=True)
    )
    names = [name for each in cards().values() for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))
    assert equipoise.zoo() == NAMES


def test_a_slip_of_the_pen():
    with pytest.raises(FileNotFoundError, match="did you mean 'ethanol'"):
        load("etanol")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_have_their_recipe(name):
    found = card(name)
    assert found.file.stat().st_size <= LARGEST
    recipe = describe(name)["extra"]["recipe"]
    assert recipe["training"]["seed"] == found.seed
    assert found.test["unconverged"] == 0
    assert found.limits


def test_the_page_is_that_of_the_cards():
    assert (ZOO / "README.md").read_text() == pages()


def test_the_card_of_ethanol_tells_the_truth():
    """Measured again on a tenth of the test set: within the scatter of 100 structures."""
    potential = load("ethanol")
    test = read_source("rmd17", subset="ethanol", cutoff=potential.cutoff).test
    found = evaluate(potential, [test[i] for i in range(0, 1000, 20)], batch_size=10)
    assert found.errors.force_mae_mev == pytest.approx(
        card("ethanol").test["force_mae_mev"], rel=0.3
    )


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "zoo"
    folder.mkdir()
    content = card("ethanol").file.read_bytes()
    (folder / "rmd17-ethanol.safetensors").write_bytes(content[:-1] + b"\0")
    monkeypatch.setattr("equipoise.potentials.zoo_cards.ZOO", folder)
    with pytest.raises(ValueError, match=re.escape("is not the file that was shipped")):
        load("ethanol")
