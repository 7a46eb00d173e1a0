"""GFN2-xTB. Skipped where tblite is not installed."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from equipoise.data.label import Langevin, Method, Request, label

pytest.importorskip("tblite.ase")

GFN2 = Request(method=Method("gfn2"))


def test_energies_and_forces_are_those_that_tblite_documents(tmp_path, in_turn):
    water = molecule("H2O")
    label([water], GFN2, folder=tmp_path, engine=in_turn())
    frame = ase.io.read(tmp_path / "labels.extxyz")
    assert frame.info["REF_energy"] == pytest.approx(-137.96777594, abs=1e-5)
    forces = [[0, 0, -0.7495271], [0, -0.1535065, 0.3747636], [0, 0.1535065, 0.3747636]]
    np.testing.assert_allclose(frame.arrays["REF_forces"], forces, atol=1e-4)
    assert frame.info["theory"] == "GFN2-xTB"
    assert frame.info["calculator_version"].startswith("tblite ")


def test_an_ion_is_computed_as_one(tmp_path, in_turn):
    neutral, info, single = molecule("H2O"), molecule("H2O"), molecule("H2O")
    info.info["charge"] = 1
    single.set_initial_charges([1, 0, 0])
    label([neutral, info, single], GFN2, folder=tmp_path / "a", engine=in_turn())
    keyword = Request(method=Method("gfn2", {"charge": 1}))
    label([neutral], keyword, folder=tmp_path / "b", engine=in_turn())
    energies = [
        frame.info["REF_energy"] for frame in ase.io.read(tmp_path / "a" / "labels.extxyz", ":")
    ]
    energies.append(ase.io.read(tmp_path / "b" / "labels.extxyz").info["REF_energy"])
    assert energies[1] - energies[0] > 10  # eV
    np.testing.assert_allclose(energies[2:], energies[1], atol=1e-6)


def test_a_keyword_that_tblite_would_ignore_is_refused():
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        Method("gfn2", {"acuracy": 0.1})
    with pytest.raises(ValueError, match="must be named as the calculator"):
        Method("gfn2", {"method": "GFN1-xTB"})


def test_what_xtb_cannot_compute_is_a_failure_with_a_clear_reason(tmp_path, in_turn):
    structures = [molecule("H2O"), Atoms("U"), Atoms("H2", [[0, 0, 0], [0, 0, 2e-3]])]
    summary = label(structures, GFN2, folder=tmp_path, engine=in_turn(), max_failures=1.0)
    assert summary.failures[1] == "GFN2-xTB does not know U (atom 0); it covers H to Rn"
    assert "0.00 Å apart" in summary.failures[2]


def test_dynamics_go_on_bit_for_bit_although_xtb_remembers_its_density(tmp_path, in_turn):
    plan = Langevin(temperatures_k=(500.0,), frames=4, stride=2, equilibration=0, chunk=2)
    half = Langevin(**{**plan.__dict__, "frames": 2})
    request = Request(method=Method("gfn2"), langevin=plan)
    water = [molecule("H2O")]
    label(water, request, folder=tmp_path / "whole", engine=in_turn())
    label(
        water,
        Request(method=Method("gfn2"), langevin=half),
        folder=tmp_path / "a",
        engine=in_turn(),
    )
    label(water, request, folder=tmp_path / "a", engine=in_turn())
    a, whole = (tmp_path / name / "labels.extxyz" for name in ("a", "whole"))
    assert a.read_bytes() == whole.read_bytes()
