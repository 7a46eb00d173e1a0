"""Compiled predictions are the plain ones. In processes of their own: compilers cannot look through the type checks of testing."""

import os
import subprocess
import sys

import pytest

from equipoise.data import rmd17
from equipoise.potentials import CompilationError, load
from equipoise.potentials.compilation import agree

SCRIPT = """
import sys
from functools import partial

import torch

torch.set_num_threads(1)
torch.compile = partial(torch.compile, backend="{backend}")  # the loops and guards are the same, the waiting is not
from equipoise.data import rmd17
from equipoise.graph import batch
from equipoise.potentials import load
from equipoise.backbones import edge_sum

{settings}
first, second, third = rmd17(cutoff=potential.cutoff).test[:3]
plain = [potential(graph, unconverged="accept") for graph in (second, batch([second, third]))]
potential.compile(first)
assert not any(p.requires_grad for p in potential.parameters())
for graph, before in zip((second, batch([second, third])), plain):
    with torch.set_grad_enabled(graph is second):  # callers who want no gradients get forces all the same
        after = potential(graph, start=before.equilibrium, unconverged="accept")
    torch.testing.assert_close(after.forces, before.forces, rtol=0, atol={tolerance})
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol={tolerance})
try:
    potential.train()
except RuntimeError as error:
    assert "load it once more" in str(error)
else:
    raise AssertionError("a compiled potential must refuse to be trained")
"""
SHIPPED = 'potential = load("rmd17-ethanol")\n'
# So few edges at a time that the loop over chunks, which compilers must not unroll, runs several times.
CHUNKS = SHIPPED + "edge_sum.CPU_CHUNK = 50\n"


def run(tmp_path, settings: str, backend: str, tolerance: float = 1e-3) -> None:
    script = SCRIPT.format(settings=settings, backend=backend, tolerance=tolerance)
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SHIPPED, id="one chunk"),
        pytest.param(CHUNKS, id="chunks", marks=pytest.mark.slow),
    ],
)
def test_compiled_predictions_are_the_plain_ones(tmp_path, settings):
    run(tmp_path, settings, "aot_eager")


@pytest.mark.slow
def test_compiled_to_machine_code(tmp_path):
    run(tmp_path, SHIPPED, "inductor")


def test_training_is_refused_before_anything_is_compiled():
    potential = load("rmd17-ethanol").train()
    with pytest.raises(RuntimeError, match="call .eval"):
        potential.compile(rmd17(cutoff=potential.cutoff).test[0])


def test_a_compiler_that_fails_leaves_the_potential_as_it_was(monkeypatch):
    potential = load("rmd17-ethanol")
    graph = rmd17(cutoff=potential.cutoff).test[0]
    energy = potential(graph).energy

    def broken(function, **settings):
        raise OSError("no compiler here")

    monkeypatch.setattr("torch.compile", broken)
    with pytest.raises(CompilationError, match="no compiler here"):
        potential.compile(graph)
    assert potential.compiled is None
    assert all(p.requires_grad for p in potential.parameters())
    assert potential(graph).energy == energy


def test_other_numbers_are_noticed():
    potential = load("rmd17-ethanol")
    first, second = (potential(graph) for graph in rmd17(cutoff=potential.cutoff).test[:2])
    agree(first, first, potential.dtype)
    with pytest.raises(CompilationError, match="forces must agree to"):
        agree(first, second, potential.dtype)
