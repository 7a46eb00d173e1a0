"""Every command and script of the documentation is carried out, in the order it is read.

A block of ```bash or ```python in README.md or docs/*.md runs in a folder that holds `mine.extxyz`
(60 labelled structures), `test.extxyz` (20 others) and `start.xyz`; a block of ```yaml becomes
`mine.yaml` there. Commands run as they stand, but with settings appended that make them tiny
(`TINY`). A block that must not run says why, in the line above it:

    <!-- notest: installs -->
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ase.io
import pytest

from equipoise.data import rmd17
from equipoise.potentials import zoo

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- notest: (?P<reason>[^\n]+?) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
# Command -> what is taken out of it, and what is put behind it (the last of two equals wins).
TINY = {
    "train": (
        r"(?!)",
        "training.epochs=1 training.max_seconds=2 training.batch_size=4 training.threads=1 "
        "potential.backbone.channels=8 potential.backbone.hidden=8 potential.backbone.ffn=8",
    ),
    "evaluate": (r"(?!)", "--limit 4"),
    "md": (r"--(steps|duration) \S+", "--steps 4 --cold-sample 1"),
    "relax": (r"(?!)", "--fmax 1000"),
    "quickstart": (r"--minutes \S+", "--minutes 0.1"),
}
# Longer than any block should take, so that one that hangs is told from one that is slow.
LIMIT = 300


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    body: str
    reason: str | None  # why it is not run


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(line, match["language"], match["body"], match["reason"])


def tiny(script: str) -> str:
    """The commands of a bash block, each made small."""
    lines = []
    for line in script.splitlines():
        command = re.match(r"equipoise (\w+)", line)
        if command and command[1] in TINY and "--keys" not in line:
            removed, appended = TINY[command[1]]
            line = f"{re.sub(removed, '', line)} {appended}"
        lines.append(line)
    return "\n".join(lines)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with what a reader of the documentation is said to have."""
    structures = [graph.to_ase()[0] for graph in rmd17("ethanol", cutoff=5.0).test[:80]]
    for atoms in structures:
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
    ase.io.write(tmp_path / "mine.extxyz", structures[:60])
    ase.io.write(tmp_path / "test.extxyz", structures[60:])
    ase.io.write(tmp_path / "start.xyz", structures[0])
    # The command as it would be installed, of this source tree and this interpreter.
    command = tmp_path / "bin" / "equipoise"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m equipoise "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(block: Block, desk: Path) -> subprocess.CompletedProcess[str]:
    if block.language == "bash":
        arguments = ["bash", "-euo", "pipefail", "-c", tiny(block.body)]
    else:
        arguments = [sys.executable, "-W", "error", "-c", block.body]
    environment = os.environ | {
        "PATH": f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        arguments, cwd=desk, env=environment, capture_output=True, text=True, timeout=LIMIT
    )


@pytest.mark.docs
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document(document: Path, desk: Path) -> None:
    without_model = []
    for block in blocks(document):
        if block.language == "yaml":
            (desk / "mine.yaml").write_text(block.body)
        if block.language not in ("bash", "python") or block.reason:
            continue
        if "rmd17-ethanol" in block.body and "rmd17-ethanol" not in zoo():
            without_model.append(block.line)
            continue
        result = run(block, desk)
        assert result.returncode == 0, (
            f"{document.name}:{block.line}: exit code {result.returncode}\n"
            f"{block.body}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        )
    if without_model:
        pytest.skip(f"no shipped model to run the blocks at lines {without_model} with")


def test_every_block_has_a_language() -> None:
    for document in DOCUMENTS:
        fences = re.findall(r"^```(.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) % 2 == 0, f"{document.name}: a block is not closed"
        assert all(fences[::2]), f"{document.name}: a block without a language is never checked"
        assert not any(fences[1::2])


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = re.sub(r"<!--.*?-->", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not target.startswith(("http:", "https:")):
                assert (document.parent / target).exists(), f"{document.name}: no {target}"


def test_commands_become_tiny() -> None:
    script = "equipoise md MODEL --duration 2ps --seed 1\nequipoise train --keys\necho equipoise"
    md, keys, other = tiny(script).splitlines()
    assert md.split() == "equipoise md MODEL --seed 1 --steps 4 --cold-sample 1".split()
    assert (keys, other) == ("equipoise train --keys", "echo equipoise")
