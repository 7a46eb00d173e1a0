"""Kill -9 in the middle, and going on afterwards."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise.data.label import Method, Request, label
from tests.data.label.test_processes import PLAN, SPRINGS, molecules

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
from tests.data.label.test_processes import PLAN, SPRINGS, molecules
from equipoise.data.label import Method, Processes, Request, label

if __name__ == "__main__":
    request = Request(method=Method(SPRINGS), langevin=PLAN)
    label(molecules("O"), request, folder=Path(sys.argv[1]), engine=Processes())
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_9_costs_no_more_than_the_chunks_in_progress(tmp_path, in_turn):
    (tmp_path / "script.py").write_text(SCRIPT)
    folder, journal = tmp_path / "a", tmp_path / "a" / "journal" / "units.jsonl"
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", folder],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3, process)
    finally:
        process.kill()
        process.wait()
    # The worker notices that nobody is left to work for.
    wait_until(lambda: not group_lives(process.pid))
    done = journal.read_bytes().count(b"\n")
    assert 3 <= done < 20, "it was to be killed half way"

    tasks = []
    request = Request(method=Method(SPRINGS), langevin=PLAN)
    label(molecules("O"), request, folder=folder, engine=in_turn(before=tasks.append))
    assert len(tasks) == 20 - done
    label(molecules("O"), request, folder=tmp_path / "b", engine=in_turn())
    assert (folder / "labels.extxyz").read_bytes() == (
        tmp_path / "b" / "labels.extxyz"
    ).read_bytes()


def wait_until(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def group_lives(leader):
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True
