"""Intervals are as wide as they should be, and differences are told from noise."""

import numpy as np
import pytest

from equipoise.train import Bootstrap
from equipoise.train.metrics import SUMS


def rows(energy_error: np.ndarray) -> np.ndarray:
    """Sums of structures with these energy errors (eV) and no forces."""
    sums = np.zeros((len(energy_error), len(SUMS)))
    sums[:, SUMS.index("energies")] = 1
    sums[:, SUMS.index("energy_absolute")] = np.abs(energy_error)
    sums[:, SUMS.index("energy_squared")] = energy_error**2
    return sums


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


def test_width_of_an_interval(random: np.random.Generator) -> None:
    error = random.exponential(size=2000)
    bounds = Bootstrap().intervals(rows(error))["energy_mae_mev"]
    assert bounds.low < 1000 * error.mean() < bounds.high
    expected = 2 * 1.96 * 1000 * error.std() / np.sqrt(2000)  # central limit theorem
    assert bounds.high - bounds.low == pytest.approx(expected, rel=0.12)
    narrow = Bootstrap(level=0.5).intervals(rows(error))["energy_mae_mev"]
    assert narrow.high - narrow.low == pytest.approx(expected * 0.6745 / 1.96, rel=0.15)


def test_blocks_see_through_a_slow_series(random: np.random.Generator) -> None:
    error = np.repeat(random.exponential(size=100), 25)  # 2500 frames, 100 independent ones
    single, blocks = (
        Bootstrap(block=block).intervals(rows(error))["energy_mae_mev"] for block in (1, 25)
    )
    ratio = (blocks.high - blocks.low) / (single.high - single.low)
    assert ratio == pytest.approx(5, rel=0.2)  # the square root of 25


def test_paired_difference(random: np.random.Generator) -> None:
    hard = random.exponential(size=300)  # what makes a structure hard for everybody
    first, better = rows(hard + 0.1 * random.random(300)), rows(0.98 * hard)
    ours, theirs = (Bootstrap().intervals(each)["energy_mae_mev"] for each in (first, better))
    assert ours.low < theirs.high, "the intervals overlap"
    difference = Bootstrap().differences(first, better)["energy_mae_mev"]
    assert difference.certain and difference.high < 0
    assert difference.low < difference.value < difference.high
    other = rows(hard + 0.1 * random.random(300))
    assert not Bootstrap().differences(first, other)["energy_mae_mev"].certain
    with pytest.raises(ValueError, match="same structures in both, received 300 and 299"):
        Bootstrap().differences(first, other[1:])


def test_same_draws_every_time(random: np.random.Generator) -> None:
    sums = rows(random.random(30))
    assert Bootstrap().intervals(sums) == Bootstrap().intervals(sums)
    assert Bootstrap().intervals(sums) != Bootstrap(seed=1).intervals(sums)


def test_no_interval_without_numbers(random: np.random.Generator) -> None:
    found = Bootstrap().intervals(rows(random.random(9)))
    assert set(found.values()) == {None}
    ten = random.random(10)
    assert Bootstrap().intervals(rows(ten))["energy_mae_mev"] is not None
    assert Bootstrap().intervals(rows(ten))["force_mae_mev"] is None
    assert Bootstrap(block=2).intervals(rows(ten))["energy_mae_mev"] is None
    ten[3] = np.nan
    assert Bootstrap().intervals(rows(ten))["energy_mae_mev"] is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"block": 0}, "block"), ({"level": 1.0}, "level"), ({"replicates": 1}, "replicates")],
)
def test_settings_are_checked(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bootstrap(**setting)
