"""What a run asks of the machine it is on, and puts back afterwards."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from equipoise.train.config import TrainingSection
from equipoise.train.processes import local_rank


def find_device(name: str) -> torch.device:
    """The device that `training.device` names; of several GPUs, each process of the machine takes its own.

    Raises:
      ValueError: if it is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device is cuda, but there is no CUDA device; use auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise ValueError(
            f"every process needs a GPU of its own: there are {torch.cuda.device_count()} on this machine, received process "
            f"number {local_rank()} (from 0); give torchrun a smaller --nproc-per-node"
        )
    return torch.device("cuda", local_rank())


@contextmanager
def settings_of_torch(settings: TrainingSection, device: torch.device) -> Iterator[None]:
    """Threads, precision and random numbers as the recipe says, and afterwards as they were.

    Raises:
      ValueError: for a precision that the device does not have.
    """
    if settings.matmul != "float32" and device.type != "cuda":
        raise ValueError(
            f"training.matmul={settings.matmul} is an arithmetic of CUDA devices, received the device {device.type}; leave it out"
        )
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision("high" if settings.matmul == "tf32" else "highest")
    try:
        # Of several GPUs, the one of this process is the current one, which is seeded and which NCCL takes.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            with _own_random_numbers(device):
                yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _own_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """The caller's random numbers go on afterwards as if nothing had been drawn."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
