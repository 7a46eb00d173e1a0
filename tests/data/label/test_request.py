"""What may be asked for, and when two requests are one."""

import math
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from equipoise.data.label import Langevin, Method, MissingPackage, Request
from equipoise.data.label.request import differences, fingerprint

HERE = "tests.data.label.calculators"
PLAN = Langevin(
    temperatures_k=(300.0, 600.0), frames=25, stride=4, equilibration=10, trajectories=3, chunk=5
)


def record(**changes):
    return Request(**{"method": Method("emt"), "langevin": PLAN} | changes).as_record(
        [molecule("H2O")]
    )


@pytest.mark.parametrize("name", ["gfn2", "GFN2", "GFN2-xTB", "gfn2-xtb"])
def test_names_are_forgiving(name):
    assert Method(name).name == "gfn2"
    assert Method(name).title == "GFN2-xTB"


@pytest.mark.parametrize(
    ("name", "keywords", "says"),
    [
        ("gnf2", {}, "did you mean 'gfn2'"),
        ("dft", {}, "one of emt, lj, gfn1, gfn2, ipea1 or module:factory"),
        ("module:", {}, "written module:factory"),
        ("a:b:c", {}, "written module:factory"),
        ("emt", {"asap_cutof": True}, "did you mean 'asap_cutoff'"),
        ("lj", {"charge": 1}, "no keyword 'charge'"),
    ],
)
def test_a_mistaken_method_is_explained(name, keywords, says):
    with pytest.raises(ValueError, match=says):
        Method(name, keywords)


@pytest.mark.parametrize(
    ("name", "keywords", "error", "says"),
    [
        ("no_such_module_:make", {}, MissingPackage, "no module 'no_such_module_'"),
        (f"{HERE}:Spring", {}, ValueError, "did you mean 'Springs'"),
        (f"{HERE}:not_one", {}, ValueError, "must return an ASE calculator, received a str"),
        (f"{HERE}:not_one", {"k": 3}, ValueError, r"cannot be made with \(k=3\): TypeError"),
        (f"{HERE}:EnergyOnly", {}, ValueError, "gives no forces, only energy"),
    ],
)
def test_a_calculator_that_does_not_work_is_found_out_first(name, keywords, error, says):
    with pytest.raises(error, match=says):
        Method(name, keywords).check()


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(
        MissingPackage, match="GFN2-xTB needs the package tblite: pip install tblite"
    ):
        Method("gfn2", {"accuracy": 0.1}).check()


def test_elements_are_known_for_the_methods_that_come_along():
    assert Method("emt").unknown_element(bulk("Cu")) is None
    assert "does not know Fe (atom 0); it covers H, C, N, O, Al" in Method("emt").unknown_element(
        bulk("Fe")
    )
    assert Method("gfn2").unknown_element(Atoms("Rn")) is None
    assert Method("gfn2").unknown_element(Atoms("HU")) == (
        "GFN2-xTB does not know U (atom 1); it covers H to Rn"
    )
    assert Method(f"{HERE}:Springs").unknown_element(Atoms("U")) is None


def test_a_file_of_ones_own_has_its_content_for_a_version(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    versions = set()
    for number, text in enumerate(("make = 1\n", "make = 2\n", "make = 1\n")):
        (tmp_path / f"loose{number}.py").write_text(text)
        versions.add(Method(f"loose{number}:make").version.split()[1])
    assert len(versions) == 2
    assert Method("emt").version.startswith("ase 3.")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperatures_k": ()}, "at least one temperature"),
        (
            {"temperatures_k": (300.0, -1.0)},
            "temperatures_k must be finite and larger than 0, received -1",
        ),
        ({"frames": 0}, "frames must be at least 1, received 0"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"equilibration": -1}, "equilibration must be at least 0"),
        ({"timestep_fs": math.nan}, "timestep_fs must be finite"),
        ({"friction_per_ps": 0.0}, "friction_per_ps must be finite and larger than 0"),
        ({"friction_per_ps": 2000.0}, "keep it below 0.5"),
        ({"max_gap": 0.0}, "max_gap must be larger than 0"),
    ],
)
def test_dynamics_that_mean_nothing_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Langevin(**{"temperatures_k": (300.0,), "frames": 10} | changes)


def test_every_trajectory_has_a_structure_and_a_temperature():
    request = Request(method=Method("emt"), langevin=PLAN)
    places = [request.place(unit) for unit in range(request.units(2))]
    assert len(places) == 2 * 2 * 3
    assert places[:4] == [(0, 300.0)] * 3 + [(0, 600.0)]
    assert places[-1] == (1, 600.0)


def test_chunks_cover_a_trajectory_and_are_cut_where_they_always_are():
    step, ends = 0, []
    while step < PLAN.steps:
        step = PLAN.end_of_chunk(step)
        ends.append(step)
    assert ends == [20, 40, 60, 80, 100, 110]
    assert PLAN.end_of_chunk(50) == 60  # also where a shorter request had ended in between


def test_only_more_frames_are_the_same_request():
    assert differences(record(), record()) == []
    longer = Langevin(**{**PLAN.__dict__, "frames": 26})
    assert differences(record(), record(langevin=longer)) == []
    assert differences(record(langevin=longer), record()) == ["frames was 26 and is now 25"]
    assert differences(record(), record(seed=1)) == ["seed was 0 and is now 1"]
    assert differences(record(), record(method=Method("emt", {"asap_cutoff": True}))) == [
        "keywords was {} and is now {'asap_cutoff': True}"
    ]
    assert differences(record(), record(langevin=None)) == [
        "it was about dynamics and is now about single structures"
    ]


def test_the_fingerprint_sees_what_labels_depend_on_and_nothing_else():
    water = molecule("H2O")
    same = fingerprint([water])
    for change in (
        lambda a: a.set_cell([5, 5, 5]),
        lambda a: a.set_pbc(True),
        lambda a: a.set_initial_charges([0, 0, 1]),
        lambda a: a.info.update(charge=1),
        lambda a: a.set_constraint(FixAtoms([0])),
        lambda a: a.positions.__iadd__(np.nextafter(0, 1) + 1e-12),
    ):
        other = water.copy()
        change(other)
        assert fingerprint([other]) != same
    other = water.copy()
    other.info["comment"] = "computed on a Tuesday"
    assert fingerprint([other]) == same
    assert fingerprint([water, water]) != same
