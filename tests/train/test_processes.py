"""Several processes on this machine, over gloo: what they exchange, and that two are one."""

import csv
import io
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from equipoise.train import ProcessError, Processes, Recipe, fit, join_processes, make_recipe
from equipoise.train.processes import started_by_torchrun
from tests.train.conftest import Fakes

LIMIT = 60  # seconds, of anything here


def together(count: int, folder: Path, work: Callable[[Processes, Path], None]) -> list[str]:
    """Run `work` in so many processes; what each of them raised, "" for nothing."""
    store = folder / "store"
    context = multiprocessing.get_context("fork")  # it has imported everything already

    def one(rank: int) -> None:
        # No interface but loopback is ever used, whatever this machine calls itself.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        text = ""
        try:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{store}",
                rank=rank,
                world_size=count,
                timeout=timedelta(seconds=LIMIT),
            )
            with join_processes() as processes:
                work(processes, folder)
        except BaseException:
            text = traceback.format_exc()
        finally:
            (folder / f"error-{rank}").write_text(text)
            os._exit(0)

    workers = [context.Process(target=one, args=(rank,)) for rank in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT)
        worker.kill()
    return [(folder / f"error-{rank}").read_text() for rank in range(count)]


def test_one_process_exchanges_nothing() -> None:
    with join_processes() as processes:
        assert processes == Processes(0, 1) and processes.first
    values = [0.1, True, 3]
    assert processes.sum(*values) == values
    processes.agree("anything", "at all")


def test_only_torchrun_makes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not started_by_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "4")  # as some queueing systems set it
    assert not started_by_torchrun()
    for name, value in {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert started_by_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not started_by_torchrun()


def test_sums_gradients_and_agreement(tmp_path: Path) -> None:
    def work(processes: Processes, folder: Path) -> None:
        rank = processes.rank
        assert processes.sum(rank, 0.5, True) == [3, 1.5, 3]
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (1,))]
        parameters[0].grad = torch.full((2, 3), 10.0**rank)
        if rank == 1:
            parameters[1].grad = torch.arange(4.0)
        processes.sum_gradients(parameters)
        assert parameters[0].grad.tolist() == [[111.0] * 3] * 2
        assert parameters[1].grad.tolist() == [0, 1, 2, 3]
        assert parameters[2].grad is None, "what none of them has trained stays untrained"

        torch.manual_seed(rank)
        network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        network[1].running_mean += rank
        processes.share(network)
        torch.manual_seed(0)
        first = nn.Linear(3, 2)
        assert torch.equal(network[0].weight, first.weight) and not network[1].running_mean.any()

        with processes.first_alone():
            if processes.first:
                time.sleep(0.2)
                (folder / "downloaded").touch()
            assert (folder / "downloaded").exists()

        processes.agree("recipe", "the same")
        with pytest.raises(ValueError, match="must have the same recipe, received others"):
            processes.agree("recipe", f"recipe {rank // 2}")
        with pytest.raises(ValueError, match="must have the same network"):
            processes.share(nn.Linear(3, 2 + rank))

    assert together(3, tmp_path, work) == ["", "", ""]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def smooth(recipe: Recipe, fakes: Fakes) -> Recipe:
    """In float64 and with a smooth loss, so that rounding stays rounding; batches of 8, 8 and 4 of 20."""
    build = fakes.build
    fakes.build = lambda *args, **kwargs: build(*args, **kwargs).double()
    plain = recipe.model_dump(mode="json")
    plain["training"].update(loss="l2", jacobian_weight=0.0, batch_size=8, epochs=3)
    return make_recipe(plain)


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_are_one(
    smooth: Recipe, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Weights, averages, moments, log and exported model; 3 processes have unequal shares of 8, 4 and 6 structures."""
    patch(monkeypatch, fakes)
    fit(smooth, tmp_path / "one", console=Console(file=io.StringIO()))

    def work(processes: Processes, folder: Path) -> None:
        console = Console(file=io.StringIO(), width=200)
        result = fit(smooth, folder / "several", console=console)
        assert result.finished and result.steps == 9
        lines = console.file.getvalue().splitlines()
        assert len(lines) == (4 if processes.first else 0), "one of them speaks"
        assert dist.is_initialized(), "a group that was there before stays"

    assert together(count, tmp_path, work) == [""] * count
    for name in ("state.safetensors", "model.safetensors"):
        ours, theirs = load_file(tmp_path / "one" / name), load_file(tmp_path / "several" / name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if not key.endswith("seen"):  # a buffer that counts calls
                torch.testing.assert_close(theirs[key], value, rtol=1e-9, atol=1e-13)
    for one, several in zip(rows(tmp_path / "one"), rows(tmp_path / "several"), strict=True):
        for key in one.keys() - {"seconds"}:
            assert float(several[key]) == pytest.approx(float(one[key]), rel=1e-6, nan_ok=True), key


def patch(monkeypatch: pytest.MonkeyPatch, fakes: Fakes) -> None:
    for name in ("trainer", "initial"):
        monkeypatch.setattr(f"equipoise.train.{name}.build", fakes.build)


def test_a_signal_to_one_stops_all_and_they_go_on(
    smooth: Recipe, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, fakes)
    fit(smooth, tmp_path / "one", console=Console(file=io.StringIO()))

    def work(processes: Processes, folder: Path) -> None:
        if processes.rank == 1:

            def press(call: int) -> None:
                if call == 4:
                    for _ in range(3):  # torchrun passes on what the terminal has sent already
                        signal.raise_signal(signal.SIGTERM)

            fakes.settings["before_call"] = press
        first = fit(smooth, folder / "several", console=Console(file=io.StringIO()))
        assert not first.finished and first.steps == 5
        fakes.settings.clear()
        assert fit(smooth, folder / "several", console=Console(file=io.StringIO())).finished

    assert together(2, tmp_path, work) == ["", ""]
    ours, theirs = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "several"))
    for key, value in ours.items():
        if key != "seen":
            torch.testing.assert_close(theirs[key], value, rtol=1e-9, atol=1e-13)
    assert [row["step"] for row in rows(tmp_path / "several")] == ["3", "6", "9"]
    for one, several in zip(rows(tmp_path / "one"), rows(tmp_path / "several"), strict=True):
        assert float(several["train_force_mae_mev"]) == pytest.approx(
            float(one["train_force_mae_mev"]), rel=1e-6
        ), "what the second had counted before the stop is not lost"


def test_balanced_batches_go_on_in_as_many_processes(
    smooth: Recipe, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are as many batches, for batch_size is what limits them, and others in them."""
    patch(monkeypatch, fakes)
    training = smooth.training.model_copy(update={"max_edges": 1000})
    balanced = smooth.model_copy(update={"training": training})

    def press(call: int) -> None:
        if call == 1:
            signal.raise_signal(signal.SIGINT)

    fakes.settings["before_call"] = press
    assert not fit(balanced, tmp_path / "run", console=Console(file=io.StringIO())).finished
    fakes.settings.clear()

    def work(processes: Processes, folder: Path) -> None:
        with pytest.raises(ValueError, match="was started in 1 processes, received 2; with train"):
            fit(balanced, folder / "run", console=Console(file=io.StringIO()))

    assert together(2, tmp_path, work) == ["", ""]
    assert fit(balanced, tmp_path / "run", console=Console(file=io.StringIO())).finished


def test_an_error_in_one_stops_all(
    smooth: Recipe, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, fakes)

    def work(processes: Processes, folder: Path) -> None:
        if processes.rank == 1:

            def fail(call: int) -> None:
                if call == 4:
                    raise MemoryError("out of memory")

            fakes.settings["before_call"] = fail
        began = time.monotonic()
        try:
            fit(smooth, folder / "run", console=Console(file=io.StringIO()))
        except ProcessError as error:
            assert processes.rank == 0 and "another process of this run has ended" in str(error)
            assert time.monotonic() - began < LIMIT / 2
            raise

    first, second = together(2, tmp_path, work)
    assert "ProcessError" in first and "MemoryError: out of memory" in second


def test_a_loss_that_is_not_finite_in_one_is_skipped_by_all(
    smooth: Recipe, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, fakes)

    def work(processes: Processes, folder: Path) -> None:
        fakes.settings["poison"] = lambda call: processes.rank == 1 and call in (2, 5)
        result = fit(smooth, folder / "run", console=Console(file=io.StringIO()))
        assert result.finished and result.bad_steps == 2

    assert together(2, tmp_path, work) == ["", ""]
