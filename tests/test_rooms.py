"""The house in order: which room may import which, and what no room may contain.

Read from the source with ast, so nothing needs to be importable.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "equipoise"
MOST_LINES = 500

# Room -> rooms it may import. Left may import right; nothing may import left.
MAY_IMPORT = {
    "graph": set(),
    "equivariant": set(),
    "deq": set(),
    "backbones": {"graph", "equivariant"},
    "potentials": {"backbones", "equivariant", "deq", "graph"},
    "data": {"graph"},
    "train": {"potentials", "equivariant", "data", "graph"},
    "engines": {"potentials", "graph", "deq"},
    "report": {"data", "potentials", "train", "engines"},
    "cli": {"graph", "data", "potentials", "train", "engines", "report", "deq"},
}
# Folders of data: no code to import anything.
CUPBOARDS = {"recipes", "zoo"}
NO_ROOMS = {"utils", "util", "tools", "common", "helpers", "helper", "misc"}

FILES = sorted(HOUSE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room a file belongs to; the name of the file for those in the hall."""
    parts = path.relative_to(HOUSE).parts
    return parts[0] if len(parts) > 1 else path.stem


def own_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported from this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "equipoise":
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this house"
            if node.module == "equipoise":
                for alias in node.names:
                    yield node.lineno, f"equipoise.{alias.name}"
            elif node.module and node.module.startswith("equipoise."):
                yield node.lineno, node.module


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):  # the hall has a door to every room
        return
    assert room in MAY_IMPORT, f"{room} is no room of the house; if it should be, add it here"
    for line, name in own_imports(parse(path)):
        parts = name.split(".")
        assert len(parts) > 1, f"{path}:{line}: a room must not import the hall"
        assert parts[1] == room or parts[1] in MAY_IMPORT[room], (
            f"{path}:{line}: {room} may not import {name}; it may import {sorted(MAY_IMPORT[room])}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_stand_at_the_top(path: Path) -> None:
    tree = parse(path)
    inside = {
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    hidden = [name for line, name in own_imports(tree) if line in inside]
    assert not hidden, f"imports inside functions hide cycles: {hidden}"


def test_no_room_without_a_purpose() -> None:
    names = {path.stem if path.suffix == ".py" else path.name for path in HOUSE.rglob("*")}
    assert not names & NO_ROOMS, "a helper lives beside its user"
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= MAY_IMPORT.keys() | CUPBOARDS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_forbidden_things(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    assert lines <= MOST_LINES, f"{lines} lines: split it"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            unpicklers = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
            assert not unpicklers & {module.split(".")[0] for module in modules}, (
                f"line {node.lineno}: nothing pickled is ever written or loaded"
            )
        if isinstance(node, ast.Attribute):
            called = ast.unparse(node)
            assert called not in ("torch.load", "torch.save", "torch.set_default_dtype"), (
                f"line {node.lineno}: {called}: checkpoints are safetensors, dtypes are passed on"
            )
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            assert "allow_pickle" in {keyword.arg for keyword in node.keywords}, (
                f"line {node.lineno}: say allow_pickle=False"
            )
