"""Training in several processes: what they say to each other, and nothing else.

Every process holds the whole network and takes its share of each batch. They exchange, in each step, how many labels the batch
has altogether (so that the loss is that of the whole batch), and the sum of the gradients; everything else follows: the
optimisers see the same numbers and stay the same. Gradients are summed here, once, after ``backward`` has ended, and not by
``DistributedDataParallel``: its hooks fire in the middle of the backward pass, of which a force loss through a fixed point has
several inside one another.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

# How long the others wait for one that downloads, converts or validates; one that has ended they notice at once.
PATIENCE = timedelta(hours=2)
# What torchrun tells each process that it starts.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ProcessError(RuntimeError):
    """Another process of the run has ended, so this one cannot go on."""


@dataclass(frozen=True)
class Processes:
    """The processes of one run. With one there is nothing to exchange, and every method returns at once.

    All methods but the properties must be called by all processes, in the same order.

    Attributes:
      rank: which one this is, 0 to ``count`` - 1.
      count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sums of each value over the processes, in float64.

        Raises:
          ProcessError: if another process is gone.
        """
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        _exchange(total)
        return total.tolist()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do something, such as a download, before the others do it and find it done."""
        if not self.first:
            self.sum(0.0)
        yield
        if self.first:
            self.sum(0.0)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes: one exchange, however many parameters.

        A parameter without a gradient in any process keeps having none; one that some processes have no gradient for (their
        share of the batch was empty) counts as 0 there.
        """
        if self.count == 1 or not parameters:
            return
        there = torch.tensor([float(p.grad is not None) for p in parameters])
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(part.flatten() for part in parts), there.to(parts[0])])
        _exchange(flat)
        *sums, there = flat.split([*(p.numel() for p in parameters), len(parameters)])
        for parameter, total, known in zip(parameters, sums, there.tolist(), strict=True):
            parameter.grad = total.view_as(parameter) if known else None

    def share(self, network: nn.Module) -> None:
        """Give every process the weights and buffers of the first.

        Raises:
          ValueError: if the networks are not the same.
        """
        if self.count == 1:
            return
        tensors = dict(network.state_dict())
        self.agree("network", ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items()))
        with torch.no_grad():
            for tensor in tensors.values():
                _guarded(dist.broadcast, tensor, 0)
        sizes = torch.stack([t.double().sum().cpu() for t in tensors.values()])
        self.agree("weights", repr(sizes.tolist()))

    def agree(self, name: str, text: str) -> None:
        """Make sure that something is the same everywhere.

        Raises:
          ValueError: in every process, if it is not.
        """
        if self.count == 1:
            return
        marks = torch.zeros(self.count, dtype=torch.float64)
        marks[self.rank] = zlib.crc32(text.encode())
        _exchange(marks)
        if len(marks.unique()) > 1:
            raise ValueError(
                f"all processes of a run must have the same {name}, received others in some; start them all with one command, "
                "on a file system that all of them see"
            )


@contextmanager
def join_processes() -> Iterator[Processes]:
    """The processes that ``torchrun`` has started, or the single one that a plain command is.

    If the caller has already set up ``torch.distributed``, its default group is used and left as it is.
    """
    if not dist.is_available():
        yield Processes()
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if not started_by_torchrun():
        yield Processes()
        return
    # Both: numbers are exchanged on the CPU, gradients where they are.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        # Also after an error: the others notice that this one is gone, and stop.
        dist.destroy_process_group()


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    started = all(name in os.environ for name in ENVIRONMENT)
    return started and int(os.environ["WORLD_SIZE"]) > 1


def speaks() -> bool:
    """Whether this process is the one that tells people how the run ended."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def local_rank() -> int:
    """Which of the processes on this machine this is; it decides the GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _exchange(total: Tensor) -> None:
    _guarded(dist.all_reduce, total)


def _guarded(collective, *args) -> None:
    try:
        collective(*args)
    except RuntimeError as error:
        raise ProcessError(
            "another process of this run has ended, so this one stops too; the reason stands in that one's output. Start the "
            f"same command again to go on from the last checkpoint (torch.distributed says: {str(error).splitlines()[0]})"
        ) from error
