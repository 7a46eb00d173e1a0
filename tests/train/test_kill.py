"""Training under kill -9, at moments that nobody chose: whatever was going on, the run goes on as if nothing had been."""

import io
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from equipoise.train import Recipe, fit, make_recipe
from tests.train.conftest import Fakes
from tests.train.test_loop import assert_same_run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

LIMIT = 300  # seconds, of one start


def run(recipe: Recipe, folder: Path, *, dies_at: int | None = None) -> int:
    """Run `fit`, to be killed at its call number `dies_at` of any Python or C function; how many calls there were if it was not.

    Counting calls, and not seconds, a seed dies in the same places on every machine: in a step, in the middle of writing a file,
    between two files.
    """
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        assert fit(recipe, folder, console=Console(file=io.StringIO())).finished
    finally:
        sys.setprofile(before)
    return calls


def survives(recipe: Recipe, folder: Path, *, dies_at: int) -> bool:
    """The same in a process of its own, and whether the run ended before its time had come."""

    def work() -> None:
        run(recipe, folder, dies_at=dies_at)
        os._exit(0)  # without the exit handlers of pytest

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(LIMIT)
    assert process.exitcode in (0, -signal.SIGKILL), "it neither ended nor was killed"
    return process.exitcode == 0


def killed_and_resumed(recipe: Recipe, folder: Path, *, kills: int, seed: int) -> None:
    """Compare a run that nothing happened to with one that was killed again and again."""
    fit(recipe, folder / "whole", console=Console(file=io.StringIO()))
    # The first has imported what is imported when it is wanted.
    calls = run(recipe, folder / "counted")
    assert_same_run(folder / "whole", folder / "counted")
    generator = np.random.default_rng(seed)
    killed = 0
    while killed < kills:
        # In the first half, or the first would hardly leave the others anything to interrupt.
        if survives(recipe, folder / "parts", dies_at=int(generator.integers(1, calls // 2))):
            break  # what was left was less than that: the run has ended
        killed += 1
    assert killed > 1
    fit(recipe, folder / "parts", console=Console(file=io.StringIO()))
    assert_same_run(folder / "whole", folder / "parts")
    names = [sorted(p.name for p in (folder / each).iterdir()) for each in ("whole", "parts")]
    assert names[0] == names[1], "no half-written file stays behind"


# Every step writes its state, so that writing is a good part of what a kill interrupts; or hardly any does.
@pytest.mark.parametrize(
    ("every", "seed"), [(0.0, 1), pytest.param(1e9, 2, marks=pytest.mark.slow)]
)
def test_kill_9_anywhere(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, every: float, seed: int
) -> None:
    settings = recipe.training.model_copy(update={"epochs": 2, "checkpoint_seconds": every})
    recipe = recipe.model_copy(update={"training": settings})
    killed_and_resumed(recipe, tmp_path, kills=3, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_anywhere_with_the_real_network(recipe: Recipe, tmp_path: Path, seed: int) -> None:
    """With all that has a state: Muon, the penalty, fixed points kept, unrolled steps, batches made in the background."""
    plain = recipe.model_dump(mode="json")
    plain["potential"]["backbone"].update(
        channels=4, lmax=1, mmax=1, heads=2, hidden=4, ffn=4, radial=4, radial_hidden=4
    )
    plain["training"].update(
        epochs=2,
        validate_every=0.5,
        checkpoint_seconds=0.0,
        optimiser="muon",
        unrolled=0.3,
        reuse_memory=1.0,
        max_edges=36,
        prefetch=1,
    )
    killed_and_resumed(make_recipe(plain), tmp_path, kills=6, seed=seed)
