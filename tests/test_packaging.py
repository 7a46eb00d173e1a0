"""What leaves the house: one version everywhere, and everything the package needs in it."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import yaml

import equipoise

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version() -> None:
    assert equipoise.__version__ == PROJECT["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    assert (
        re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
        == (PROJECT["version"])
    )


def test_constraints_fit_the_bounds() -> None:
    """Every dependency has a tested version, not older than what the package asks for."""
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    extras = PROJECT["optional-dependencies"]
    # What the tests do without is in no tested version: wandb.
    tested = [each for name in extras if name != "wandb" for each in extras[name]]
    for dependency in PROJECT["dependencies"] + tested:
        if dependency.startswith("equipoise["):  # further extras, which are here anyway
            continue
        name, least = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", dependency).groups()
        assert _parts(pinned[name]) >= _parts(least), dependency


def test_files_of_the_package_are_there() -> None:
    package = files("equipoise")
    for name in ("recipes/quickstart.yaml", "report/page.css", "report/viewer.js"):
        assert package.joinpath(name).is_file()
    shipped = package.joinpath("data/sources/rmd17_ethanol")
    assert {"train_01.npz", "test_01.npz", "README.md"} <= {each.name for each in shipped.iterdir()}


def test_a_trained_potential_is_shipped() -> None:
    """Tests of trained weights run over the zoo: an empty one must not make them vanish."""
    model = files("equipoise").joinpath("zoo/rmd17-ethanol.safetensors")
    assert model.is_file()
    assert len(model.read_bytes()) <= 4 * 2**20
    assert "rmd17-ethanol" in equipoise.zoo()


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
