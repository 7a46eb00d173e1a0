"""A Dask cluster on this machine. Skipped where Dask is not installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.data.label import Dask, Method, Request, label
from tests.data.label.test_processes import PLAN, SPRINGS, molecules

ROOT = Path(__file__).parents[3]
installed = importlib.util.find_spec("distributed") is not None

# In a process of its own: Dask leaves threads behind, and warnings that are none of ours.
SCRIPT = """
import sys
from tests.data.label.test_processes import PLAN, SPRINGS, molecules
from equipoise.data.label import Dask, Method, Request, label

if __name__ == "__main__":
    trouble = {"trouble": {"N": "raise"}, "memory": True}
    request = Request(method=Method(SPRINGS, trouble), langevin=PLAN)
    summary = label(
        molecules("O", "N"), request, folder=sys.argv[1], engine=Dask(workers=2), max_failures=1.0
    )
    print(sorted(summary.failures))
"""


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="Dask is not installed")
def test_a_local_cluster_gives_the_labels_of_one_process(tmp_path, in_turn):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "dask"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2, 3]\n"
    trouble = {"trouble": {"N": "raise"}, "memory": True}
    request = Request(method=Method(SPRINGS, trouble), langevin=PLAN)
    label(molecules("O", "N"), request, folder=tmp_path / "one", engine=in_turn(), max_failures=1.0)
    one, dask = (tmp_path / name / "labels.extxyz" for name in ("one", "dask"))
    assert one.read_bytes() == dask.read_bytes()


def test_without_dask_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="pip install"):
        label(molecules("O"), Request(method=Method(SPRINGS)), folder=tmp_path, engine=Dask())
