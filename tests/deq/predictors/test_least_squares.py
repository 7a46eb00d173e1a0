"""Coefficients from descriptors: exact where they can be, per structure, and towards the last solution where they cannot."""

import math

import numpy as np
import pytest
import torch

from equipoise.deq import Inner
from equipoise.deq.predictors import Last, LeastSquares, Quadratic


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_exact_for_affine_states_and_affine_combinations():
    """z = A d + c and d_new = Σ α_i d_i with Σ α_i = 1: the guess is the solution."""
    past, alpha = normal(4, 7, 5, seed=1), torch.tensor([2.0, -1.5, 0.8, -0.3]).double()
    new = torch.einsum("p,prd->rd", alpha, past)
    matrix, constant = normal(5, 3, seed=2), normal(7, 3, seed=3)
    states = past @ matrix + constant
    predictor = LeastSquares(depth=4, ridge=1e-14)
    torch.testing.assert_close(predictor.coefficients(list(past), new)[0], alpha)
    guess = predictor(list(states), descriptors=list(past), descriptor=new)
    torch.testing.assert_close(guess, new @ matrix + constant, rtol=1e-11, atol=1e-11)
    adjoints = states @ normal(3, 3, seed=4)
    guess = predictor(list(adjoints), descriptors=list(past), descriptor=new)
    expected = (new @ matrix + constant) @ normal(3, 3, seed=4)
    torch.testing.assert_close(guess, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ridge", [1e-8, 1e-2, 1.0])
def test_solves_the_stated_problem(ridge):
    """Against NumPy's least squares on the stacked system [differences; √penalty] β = [move; 0]."""
    past, new = normal(5, 7, 2, seed=5).flatten(1).numpy(), normal(7, 2, seed=6).flatten().numpy()
    moves = (past[1:] - past[0]).T
    penalty = ridge * (moves**2).sum(0).mean()
    system = np.vstack([moves, math.sqrt(penalty) * np.eye(4)])
    beta = np.linalg.lstsq(system, np.concatenate([new - past[0], np.zeros(4)]), rcond=None)[0]
    alpha = LeastSquares(depth=5, ridge=ridge).coefficients(
        list(torch.from_numpy(past).view(5, 7, 2)), torch.from_numpy(new).view(7, 2)
    )
    expected = torch.from_numpy(np.concatenate([[1 - beta.sum()], beta]))
    torch.testing.assert_close(alpha, expected[None], rtol=1e-9, atol=1e-12)


def test_a_large_ridge_and_a_still_structure_give_the_last_solution():
    past, new, states = list(normal(4, 7, 5)), normal(7, 5, seed=1), list(normal(4, 7, 3, seed=2))
    guess = LeastSquares(ridge=1e12)(states, descriptors=past, descriptor=new)
    torch.testing.assert_close(guess, states[0], rtol=0, atol=1e-10)
    guess = LeastSquares()(states, descriptors=[new] * 4, descriptor=new)
    assert torch.equal(guess, states[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_structure_does_not_feel_its_batch_mates(dtype):
    owner = torch.tensor([0, 1, 0, 2, 2, 0, 2])
    # Structure 1 has stopped; structure 2 moves a thousand times as far as structure 0.
    speed = torch.tensor([1.0, 0.0, 1e3], dtype=dtype)[owner, None]
    past = [speed * d for d in normal(4, 7, 6, dtype=dtype)]
    new = speed * normal(7, 6, seed=1, dtype=dtype)
    states = list(normal(4, 7, 2, 3, seed=2, dtype=dtype))
    together = LeastSquares()(states, descriptors=past, descriptor=new, inner=Inner(owner, 3))
    for structure in range(3):
        rows = owner == structure
        alone = LeastSquares()(
            [z[rows] for z in states],
            descriptors=[d[rows] for d in past],
            descriptor=new[rows],
            inner=Inner(),
        )
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e3 * torch.finfo(dtype).eps)
    assert torch.equal(together[1], states[0][1])


def test_follows_a_smooth_path_at_unequal_steps():
    """A tanh network driven around an ellipse: polynomials in time are misled by steps that differ, descriptors are not."""
    matrix, vectors = normal(2, 20, seed=1), normal(3, 20, seed=2)

    def descriptor(t):
        return torch.stack([t.cos(), t.sin()])[None] @ matrix

    def state(t):
        return torch.tanh(descriptor(t) * 0.3 + vectors)

    times = torch.tensor([0.62, 0.5, 0.44, 0.31, 0.26, 0.11], dtype=torch.float64)
    states = [state(t) for t in times[1:]]
    truth = state(times[0])
    past = [descriptor(t).expand(3, -1) for t in times[1:]]
    new = descriptor(times[0]).expand(3, -1)
    fitted = LeastSquares(depth=5, ridge=1e-10)(states, descriptors=past, descriptor=new)
    error = (fitted - truth).norm()
    assert error < (Quadratic()(states) - truth).norm() / 20
    assert error < (Last()(states) - truth).norm() / 20


def test_histories_of_any_length():
    past, new, states = list(normal(4, 7, 5)), normal(7, 5, seed=1), list(normal(4, 7, 3, seed=2))
    predictor = LeastSquares(depth=3)
    one = predictor(states[:1], descriptors=past, descriptor=new)
    assert torch.equal(one, states[0])
    two = predictor(states[:2], descriptors=past, descriptor=new)
    torch.testing.assert_close(two, predictor(states[:2], descriptors=past[:2], descriptor=new))
    three = predictor(states, descriptors=past, descriptor=new)
    torch.testing.assert_close(three, predictor(states[:3], descriptors=past[:3], descriptor=new))
    scalars = predictor([z[:, 0] for z in states], descriptors=past, descriptor=new)
    torch.testing.assert_close(scalars, three[:, 0])


def test_bad_input():
    past, new, states = list(normal(3, 7, 5)), normal(7, 5), list(normal(3, 7, 3))
    predictor = LeastSquares()
    with pytest.raises(ValueError, match="received no descriptors; without them use ASPC"):
        predictor(states)
    with pytest.raises(ValueError, match="received no descriptor;"):
        predictor(states, descriptors=past)
    with pytest.raises(ValueError, match="received 2 for 3 solutions"):
        predictor(states, descriptors=past[:2], descriptor=new)
    with pytest.raises(ValueError, match=r"shape of the new one, \(7, 4\), received \(7, 5\)"):
        predictor(states, descriptors=past, descriptor=new[:, :4])
    edges = Inner(torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), 2)
    with pytest.raises(ValueError, match="the 8 rows that inner.owner names, received 7 and 7"):
        predictor(states, descriptors=past, descriptor=new, inner=edges)
    with pytest.raises(ValueError, match=r"depth must be >= 2, received 1; for 1 use Last\(\)"):
        LeastSquares(depth=1)
    with pytest.raises(ValueError, match="ridge must be > 0, received 0"):
        LeastSquares(ridge=0.0)
