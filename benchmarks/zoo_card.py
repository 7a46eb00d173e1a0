"""Put a trained potential into the zoo, with a card whose numbers are measured here.

    python -m benchmarks.zoo_card rmd17-ethanol runs/rmd17-ethanol --alias ethanol --system "one ethanol molecule" \\
        --trained-on "revised MD17 ethanol, official split 01: 950 training, 50 validation structures" \\
        --theory "PBE/def2-SVP" --licence CC0-1.0 --command "equipoise train rmd17-ethanol training.max_seconds=4200" \\
        --seconds 4200 --hardware "one CPU thread (Xeon, 2.1 GHz)" --limit "It knows no other molecule." --data rmd17:ethanol

Evaluates the potential with the command `equipoise evaluate`, copies the model and writes `<name>.json` beside it and
all cards into `README.md`. Without a run folder, only the card of a model that is in the zoo already is made again.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from equipoise.potentials import cards, describe, load, save
from equipoise.report.model_card import markdown

ZOO = Path(__file__).parent.parent / "equipoise" / "zoo"
# What a card keeps of evaluation.json.
KEPT = (
    "energy_mae_mev",
    "energy_mae_mev_per_atom",
    "energy_rmse_mev",
    "force_mae_mev",
    "force_rmse_mev",
    "intervals",
    "structures",
    "passes_forward",
    "passes_adjoint",
    "unconverged",
    "molecules",
    "examination",
    "data",
)
LARGEST = 4 * 2**20
INTRODUCTION = """# Potentials that come with the package

`equipoise zoo list` lists them, `equipoise.load("ethanol")` reads one, `equipoise info NAME` shows the whole recipe. Files are
safetensors, and their sha256 is compared when they are read. Energies per structure, forces per component; in brackets 95 %
bootstrap intervals. A potential of a few molecules is for trying things out and for measuring methods: it knows nothing of other
molecules, even of the same elements, nor of broken bonds.
"""


def measure(model: Path, data: str | None, data_folder: Path | None) -> dict[str, object]:
    """`evaluation.json` of a model on test structures, by default those of its recipe."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "equipoise", "evaluate", str(model)]
        if data is not None:
            command += ["--data", data]
        if data_folder is not None:
            command += ["--data-folder", str(data_folder)]
        subprocess.run([*command, "--folder", folder], check=True)
        return json.loads((Path(folder) / "evaluation.json").read_text())


def put(source: Path, model: Path) -> None:
    """Copy a model, without the place that its data had on this machine."""
    extra = describe(source)["extra"]
    extra["recipe"]["data"]["folder"] = None
    save(load(source), model, extra=extra)


def pages() -> str:
    """All cards, as they stand in README.md."""
    return "\n".join([INTRODUCTION, *map(markdown, cards().values())])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--alias", action="append", default=[])
    for name in ("system", "trained-on", "theory", "licence", "command", "hardware"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--data", help="default: the test structures of the recipe")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--limit", action="append", default=[])
    parser.add_argument("--data-folder", type=Path)
    given = parser.parse_args()

    model = ZOO / f"{given.name}.safetensors"
    source = model if given.run is None else given.run / "model.safetensors"
    size = source.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"a model of the zoo has at most {LARGEST:,} bytes, {source} has {size:,}")
    record = measure(source, given.data, given.data_folder)
    if source != model:
        put(source, model)
    card = {
        "name": given.name,
        "aliases": given.alias,
        "system": given.system,
        "trained_on": given.trained_on,
        "theory": given.theory,
        "licence": given.licence,
        "command": given.command,
        "seconds": given.seconds,
        "hardware": given.hardware,
        "seed": describe(source)["extra"]["recipe"]["training"]["seed"],
        "test": {key: record[key] for key in KEPT},
        "limits": given.limit,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    (ZOO / f"{given.name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    cards.cache_clear()
    (ZOO / "README.md").write_text(pages())


if __name__ == "__main__":
    main()
