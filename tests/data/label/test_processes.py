"""Real processes: the same labels, and deaths that are noticed."""

import os
import signal

import pytest
from ase.build import molecule

from equipoise.data.label import Langevin, Method, Processes, Request, label

SPRINGS = "tests.data.label.calculators:Springs"
PLAN = Langevin(
    temperatures_k=(300.0,), frames=40, stride=2, equilibration=0, trajectories=2, chunk=4
)


def molecules(*symbols):
    structures = []
    for symbol in symbols:
        atoms = molecule("H2O")
        atoms.symbols[0] = symbol
        structures.append(atoms)
    return structures


def test_two_processes_give_the_labels_of_one(tmp_path, in_turn):
    request = Request(
        method=Method(SPRINGS, {"trouble": {"N": "raise"}, "memory": True}), langevin=PLAN
    )
    before = signal.getsignal(signal.SIGINT), dict(os.environ)
    structures, wrong = molecules("O", "N"), {"max_failures": 0.5}
    two = label(structures, request, folder=tmp_path / "2", engine=Processes(workers=2), **wrong)
    one = label(structures, request, folder=tmp_path / "1", engine=in_turn(), **wrong)
    assert one.labels_file.read_bytes() == two.labels_file.read_bytes()
    assert one.failures_file.read_bytes() == two.failures_file.read_bytes()
    assert (signal.getsignal(signal.SIGINT), dict(os.environ)) == before
    assert (two.frames, list(two.failures)) == (2 * 40, [2, 3])


@pytest.mark.slow
def test_a_task_that_kills_its_process_is_blamed_and_no_other(tmp_path):
    structures = molecules("O", "N", "S", "F", "Se", "N", "Te")
    request = Request(method=Method(SPRINGS, {"trouble": {"N": "die"}}))
    summary = label(
        structures, request, folder=tmp_path, engine=Processes(workers=2), max_failures=0.5
    )
    assert list(summary.failures) == [1, 5]
    assert all("the worker process died" in why for why in summary.failures.values())
    assert summary.frames == 5
