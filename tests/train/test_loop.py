"""The loop with a potential that takes no time; `test_real_potential.py` has the real one."""

import csv
import errno
import io
import json
import os
import signal
from pathlib import Path

import ase.io
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from equipoise.train import Recipe, SavingError, TrainingError, fit, load_recipe, state, trainer
from equipoise.train.log import COLUMNS
from equipoise.train.machine import find_device
from equipoise.train.step import draw as draw_step
from tests.train.conftest import Fakes


def changed(recipe: Recipe, **settings: object) -> Recipe:
    training = recipe.training.model_copy(update=settings)
    return recipe.model_copy(update={"training": training})


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: weights, averages, moments, counters, exported model, log."""
    for name in ("state.safetensors", "model.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), (name, key)
    counters = []
    for folder in (one, other):
        plain = json.loads((folder / "state.json").read_text())
        counters.append({k: v for k, v in plain.items() if k != "seconds"})
    assert counters[0] == counters[1]
    logs = [[{k: v for k, v in r.items() if k != "seconds"} for r in rows(f)] for f in (one, other)]
    assert logs[0] == logs[1]


def test_a_run_learns_and_leaves_its_files(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    before = torch.random.get_rng_state()
    result = fit(changed(recipe, epochs=8, learning_rate=0.05), tmp_path / "run", console=console)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert result.finished and result.steps == 40 and result.bad_steps == result.unconverged == 0
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "log.csv",
        "model.safetensors",
        "recipe.yaml",
        "state.json",
        "state.safetensors",
        "tensorboard",
    ]
    log = rows(tmp_path / "run")
    assert tuple(log[0]) == COLUMNS
    assert [int(row["step"]) for row in log] == list(range(5, 41, 5))
    assert float(log[-1]["epoch"]) == 8 and float(log[-1]["passes"]) == 3
    assert float(log[-1]["adjoint_passes"]) == 2 and float(log[-1]["lr"]) < 1e-12
    valid = [float(row["valid_force_mae_mev"]) for row in log]
    assert valid[-1] < 0.7 * valid[0]
    assert result.best_force_mae_mev == pytest.approx(min(valid))
    printed = console.file.getvalue()
    assert "20 train (20 with energy" in printed
    assert len(printed.splitlines()) == 9 and "━" not in printed


def test_exported_weights_are_the_best_average(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    seen = []

    def save(potential: torch.nn.Module, path: Path, *, extra: dict) -> None:
        seen.append(({k: v.clone() for k, v in potential.state_dict().items()}, extra))
        path.write_bytes(b"")

    trainer.save = save  # undone with the fixture's own patch
    result = fit(recipe, tmp_path / "run", console=console)
    weights, extra = seen[-1]
    assert extra["epoch"] == result.best_epoch
    assert extra["validation"]["force_mae_mev"] == result.best_force_mae_mev
    assert extra["recipe"]["training"]["epochs"] == 4
    json.dumps(extra)
    if result.best_epoch == 4:
        final = load_file(tmp_path / "run" / "state.safetensors")
        for name, value in weights.items():
            assert torch.equal(value, final[f"average.module.{name}"])


@pytest.mark.parametrize("stop", [3, 5, 19])
def test_interrupted_and_resumed_is_uninterrupted(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, stop: int
) -> None:
    """Ctrl-C in a step of the middle, the end and the beginning of an epoch."""
    fit(recipe, tmp_path / "whole", console=console)

    def press(call: int) -> None:
        if call == stop - 1:
            signal.raise_signal(signal.SIGINT)

    fakes.settings["before_call"] = press
    first = fit(recipe, tmp_path / "parts", console=console)
    assert not first.finished and first.steps == stop
    assert f"equipoise train {tmp_path / 'parts' / 'recipe.yaml'}" in console.file.getvalue()
    fakes.settings.clear()
    torch.rand(3)  # the caller's random numbers must not matter
    second = fit(recipe, tmp_path / "parts", console=console)
    assert second.finished and second.steps == 20
    assert "going on from epoch" in console.file.getvalue()
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("every", "expected"), [(0.4, range(2, 21, 2)), (2.0, [10, 20])])
def test_validations_may_come_more_or_less_often_than_epochs(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, every: float, expected: list
) -> None:
    fit(changed(recipe, validate_every=every), tmp_path, console=console)
    assert [int(row["step"]) for row in rows(tmp_path)] == list(expected)


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_killed_and_resumed_is_uninterrupted(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, every: float
) -> None:
    """Dead in the middle of a step: goes on from the last checkpoint, whichever that was."""
    recipe = changed(recipe, checkpoint_seconds=every)
    fit(recipe, tmp_path / "whole", console=console)

    class Killed(BaseException):
        pass

    def die(call: int) -> None:
        if call == 12:
            raise Killed

    fakes.settings["before_call"] = die
    with pytest.raises(Killed):
        fit(recipe, tmp_path / "parts", console=console)
    assert json.loads((tmp_path / "parts/state.json").read_text())["step"] == (10 if every else 12)
    fakes.settings.clear()
    # What a kill between a log line and its checkpoint leaves behind.
    with open(tmp_path / "parts" / "log.csv", "a") as file:
        file.write("3,15,1,1,1,1,1,1,1,1,1,0\r\n4,20,1")
    assert fit(recipe, tmp_path / "parts", console=console).finished
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_sigterm_stops_as_ctrl_c_does_and_handlers_are_put_back(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    fakes.settings["before_call"] = lambda call: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):  # the second press means at once
        fakes.settings["before_call"] = lambda call: [
            signal.raise_signal(s) for s in (signal.SIGTERM, signal.SIGINT)
        ]
        fit(recipe, tmp_path / "twice", console=console)
    fakes.settings["before_call"] = lambda call: signal.raise_signal(signal.SIGTERM)
    assert not fit(recipe, tmp_path / "once", console=console).finished
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_finished_run_is_left_alone(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    first = fit(recipe, tmp_path, console=console)
    data = (tmp_path / "model.safetensors").read_bytes()
    again = fit(recipe, tmp_path, console=console)
    assert again.finished and again.steps == first.steps
    assert again.best_force_mae_mev == first.best_force_mae_mev
    assert (tmp_path / "model.safetensors").read_bytes() == data
    assert fakes.potentials[1].calls == 0


def test_another_recipe_is_refused_unless_told(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    fit(recipe, tmp_path, console=console)
    other = changed(recipe, batch_size=5, threads=2)
    with pytest.raises(ValueError, match=r"different recipe \(training.batch_size: 4 there, 5"):
        fit(other, tmp_path, console=console)
    assert len(rows(tmp_path)) == 4
    result = fit(other, tmp_path, resume=False, console=console)
    assert result.finished and result.steps == 16
    assert [int(row["step"]) for row in rows(tmp_path)] == [4, 8, 12, 16]


def test_threads_and_checkpoints_may_change(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    fit(recipe, tmp_path, console=console)
    threads = torch.get_num_threads()
    assert fit(changed(recipe, checkpoint_seconds=1.0), tmp_path, console=console).finished
    assert torch.get_num_threads() == threads


def test_a_run_folder_that_is_a_file_or_has_lost_its_recipe(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder, received the file"):
        fit(recipe, tmp_path / "file", console=console)
    fit(recipe, tmp_path / "run", console=console)
    (tmp_path / "run" / "recipe.yaml").unlink()
    for name in ("state.safetensors", "model.safetensors"):
        with pytest.raises(ValueError, match=f"holds {name} .* but no recipe.yaml to check"):
            fit(recipe, tmp_path / "run", console=console)
        (tmp_path / "run" / "state.safetensors").unlink(missing_ok=True)
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert fit(recipe, tmp_path / "run", resume=False, console=console).finished
    with pytest.raises(ValueError, match="a run needs a folder"):
        fit(recipe, console=console)


@pytest.mark.parametrize("resume", [True, False])
def test_data_that_cannot_be_read_costs_nothing(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, resume: bool
) -> None:
    """Neither a new folder nor, with resume=False, the run in an old one."""
    slip = recipe.data.model_copy(update={"train": "nowhere.extxyz"})
    wrong = recipe.model_copy(update={"data": slip})
    with pytest.raises(FileNotFoundError, match="nowhere.extxyz"):
        fit(wrong, tmp_path / "new", resume=resume, console=console)
    assert not (tmp_path / "new").exists()
    fit(recipe, tmp_path / "old", console=console)
    before = {p: p.read_bytes() for p in (tmp_path / "old").rglob("*") if p.is_file()}
    with pytest.raises((FileNotFoundError, ValueError)):
        fit(wrong, tmp_path / "old", resume=resume, console=console)
    assert before == {p: p.read_bytes() for p in (tmp_path / "old").rglob("*") if p.is_file()}


def test_a_folder_in_which_nothing_was_trained_takes_another_recipe(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    changed(recipe, batch_size=3).save(tmp_path / "recipe.yaml")
    (tmp_path / "evaluation.json").write_text("{}")
    assert fit(recipe, tmp_path, console=console).finished
    assert load_recipe(tmp_path).training.batch_size == 4
    assert (tmp_path / "evaluation.json").exists(), "nothing is deleted unless asked for"
    fit(recipe, tmp_path, resume=False, console=console)
    assert not (tmp_path / "evaluation.json").exists()


def test_a_folder_that_cannot_be_written_to(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SavingError, match="must go to a folder that exists or can be made"):
        fit(recipe, tmp_path / "file" / "run", console=console)

    def refuse(self: Recipe, path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Recipe, "save", refuse)
    with pytest.raises(SavingError, match="must be one that can be written to, .*output.folder"):
        fit(recipe, tmp_path / "run", console=console)


def test_steps_that_are_not_finite_are_skipped_and_counted(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    fakes.settings["poison"] = lambda call: call in (2, 3, 7)
    result = fit(changed(recipe, max_bad_steps=3), tmp_path, console=console)
    assert result.finished and result.bad_steps == 3 and result.steps == 20
    assert "3 steps skipped (not finite)" in console.file.getvalue()
    for value in load_file(tmp_path / "state.safetensors").values():
        assert value.isfinite().all()


def test_nothing_but_nan_stops_with_the_state_saved(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    fakes.settings["poison"] = lambda call: call >= 7
    with pytest.raises(TrainingError, match="not finite 3 times in a row, last at step 10"):
        fit(changed(recipe, max_bad_steps=3), tmp_path, console=console)
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 10
    for value in load_file(tmp_path / "state.safetensors").values():
        assert value.isfinite().all()


def test_unconverged_solves_are_counted_and_shown(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    fakes.settings["unconverged"] = lambda call: call % 2 == 0
    result = fit(recipe, tmp_path, console=console)
    assert result.unconverged == 10
    assert sum(int(row["unconverged"]) for row in rows(tmp_path)) == 10
    assert "solves did not converge" in console.file.getvalue()


def test_the_clock_ends_a_run_with_a_small_learning_rate(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    recipe = changed(recipe, epochs=100000, max_seconds=0.7, validate_every=1e5)
    result = fit(recipe, tmp_path, console=console)
    assert result.finished and 0.7 <= result.seconds < 5
    (row,) = rows(tmp_path)  # the final validation, in the middle of an epoch or not
    assert float(row["lr"]) < 1e-12
    assert fit(recipe, tmp_path, console=console).finished


def test_a_full_disk_stops_clearly_and_the_run_goes_on_later(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(recipe, tmp_path / "whole", console=console)
    writes = []

    def sometimes_full(source: Path, target: Path) -> None:
        writes.append(target)
        if Path(target).name == "state.safetensors" and len(writes) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(state.os, "replace", sometimes_full)
        with pytest.raises(SavingError, match="state.safetensors could not be written: No space"):
            fit(recipe, tmp_path / "parts", console=console)
    assert fit(recipe, tmp_path / "parts", console=console).finished
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_other_data_under_a_run_is_noticed(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    copy = tmp_path / "data.extxyz"
    text = Path(recipe.data.train).read_text()
    copy.write_text(text)
    data = recipe.data.model_copy(update={"train": str(copy)})
    recipe = recipe.model_copy(update={"data": data})
    fit(recipe, tmp_path / "run", console=console)
    copy.write_text("\n".join(text.splitlines()[:-6]) + "\n")
    with pytest.raises(ValueError, match="started with 20 training structures, received 19"):
        fit(recipe, tmp_path / "run", console=console)


@pytest.mark.parametrize("key", ["train", "validation"])
def test_other_labels_under_a_run_are_noticed(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, key: str
) -> None:
    files = {name: tmp_path / f"{name}.extxyz" for name in ("train", "validation")}
    frames = ase.io.read(recipe.data.train, index=":")
    for file, some in zip(files.values(), (frames[:20], frames[20:]), strict=True):
        ase.io.write(file, some)
    update = {name: str(file) for name, file in files.items()} | {"validation_count": 50}
    data = recipe.data.model_copy(update=update)
    recipe = changed(recipe.model_copy(update={"data": data}), epochs=1)
    fit(recipe, tmp_path / "run", console=console)
    files[key].write_text(files[key].read_text())
    assert fit(recipe, tmp_path / "run", console=console).finished, "the same numbers"
    assert "warning" not in console.file.getvalue()
    some = ase.io.read(files[key], index=":")
    some[-1].info["REF_energy"] += 1e-3
    ase.io.write(files[key], some)
    with pytest.raises(ValueError, match="was started with other data"):
        fit(recipe, tmp_path / "run", console=console)
    assert fit(recipe, tmp_path / "run", resume=False, console=console).finished


def test_a_state_that_does_not_say_which_data(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = changed(recipe, epochs=1)
    fit(recipe, tmp_path, console=console)
    read = state.json.loads

    def older(text: str) -> dict:
        new = ("data", "processes")
        return {key: value for key, value in read(text).items() if key not in new}

    monkeypatch.setattr(state.json, "loads", older)
    assert fit(recipe, tmp_path, console=console).finished


def test_validation_structures_that_are_trained_on(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    frames = ase.io.read(recipe.data.train, index=":")
    frames[3].positions += 1.5  # the same molecule elsewhere
    ase.io.write(tmp_path / "other.extxyz", frames[:4])
    ase.io.write(tmp_path / "train.extxyz", frames[2:])
    files = {name: str(tmp_path / f"{name}.extxyz") for name in ("train", "other")}
    data = recipe.data.model_copy(update={"train": files["train"], "validation": files["other"]})
    recipe = changed(recipe.model_copy(update={"data": data}), epochs=1)
    fit(recipe, tmp_path / "run", console=console)
    said = "warning: 2 of 4 validation structures are in the training set as well"
    assert said in console.file.getvalue()


def test_batches_that_are_others_are_noticed(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `max_edges` and another number of processes: the same step would be another place in another epoch."""
    fit(changed(recipe, epochs=1), tmp_path, console=console)

    class Fewer(trainer.Loader):
        def __len__(self) -> int:
            return super().__len__() - 1

    monkeypatch.setattr(trainer, "Loader", Fewer)
    with pytest.raises(ValueError, match="started with 5 batches per epoch, received 4; with tr"):
        fit(changed(recipe, epochs=1), tmp_path, console=console)


def test_energies_alone_decide_where_there_are_no_forces(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    frames = ase.io.read(recipe.data.train, index=":")
    for atoms in frames:
        del atoms.arrays["REF_forces"]
    ase.io.write(tmp_path / "energies.extxyz", frames)
    data = recipe.data.model_copy(update={"train": str(tmp_path / "energies.extxyz")})
    result = fit(recipe.model_copy(update={"data": data}), tmp_path / "run", console=console)
    best = min(float(row["valid_energy_mae_mev"]) for row in rows(tmp_path / "run"))
    assert result.best_force_mae_mev == pytest.approx(best) and result.best_unit == "meV"


def test_a_bar_on_a_terminal(recipe: Recipe, fakes: Fakes, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    fit(recipe, tmp_path / "[bold]", console=console)
    printed = console.file.getvalue()
    assert "epoch" in printed and "best valid" in printed and "passes 3" in printed


def test_the_jacobian_penalty_is_asked_for_as_often_as_told(recipe: Recipe) -> None:
    def draw(**settings: object) -> list[bool]:
        training = recipe.training.model_copy(update=settings)
        with torch.random.fork_rng(devices=[]):
            cpu = torch.device("cpu")
            return [draw_step(training, step, cpu, 0.5).penalise for step in range(400)]

    assert 150 < sum(draw()) < 250
    assert draw() == draw() != draw(seed=1)
    assert not any(draw(jacobian_weight=0.0))
    assert all(draw(jacobian_probability=1.0))


def test_cuda_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="there is no CUDA device; use auto or cpu"):
        find_device("cuda")
    assert find_device("auto").type == "cpu"


def test_no_patience_left(recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console) -> None:
    """Nothing gets better where nothing moves; the run is finished all the same, also after a stop."""
    recipe = changed(recipe, patience=2, learning_rate=1e-30, jacobian_weight=0.0)
    result = fit(recipe, tmp_path / "whole", console=console)
    assert result.finished and result.best_epoch == 1 and result.steps == 15
    assert "no better validation in 2: ending at epoch 3" in console.file.getvalue()
    assert fit(recipe, tmp_path / "whole", console=console).steps == 15

    def press(call: int) -> None:
        if call == 12:
            signal.raise_signal(signal.SIGINT)

    fakes.settings["before_call"] = press
    assert not fit(recipe, tmp_path / "parts", console=console).finished
    fakes.settings.clear()
    fit(recipe, tmp_path / "parts", console=console)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks of files are those of POSIX")
def test_two_runs_in_one_folder_are_refused(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    refusals = []

    def another(call: int) -> None:
        if call == 7 and not refusals:
            fakes.settings.clear()
            for resume in (True, False):
                with pytest.raises(ValueError, match="a run is going on in .* at this moment"):
                    fit(recipe, tmp_path, resume=resume, console=console)
                refusals.append(resume)

    fakes.settings["before_call"] = another
    assert fit(recipe, tmp_path, console=console).finished and refusals == [True, False]
    assert len(rows(tmp_path)) == 4
    assert fit(recipe, tmp_path, console=console).finished, "the lock has gone with the run"


def test_arithmetic_of_a_gpu_is_refused_on_a_cpu(
    recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    with pytest.raises(ValueError, match="training.matmul=tf32 is an arithmetic of CUDA devices"):
        fit(changed(recipe, matmul="tf32", device="cpu"), tmp_path, console=console)
    assert torch.get_float32_matmul_precision() == "highest" and not (tmp_path / "log.csv").exists()
