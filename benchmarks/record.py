"""What every benchmark writes: numbers, and what they were measured on."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("equipoise", "torch", "numpy", "ase", "vesin")


def processor() -> str:
    """Name of the CPU, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(name: str, command: str, results: dict[str, Any], *, seeds: list[int]) -> Path:
    """Write ``results/<name>.json`` and return its path."""
    record = {
        "benchmark": name,
        "command": command,
        "hardware": {
            "cpu": processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {package: version(package) for package in PACKAGES}
        | {"python": platform.python_version()},
        "seeds": seeds,
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
