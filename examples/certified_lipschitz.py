"""A network that cannot be steeper than you allow: regression with a certified Lipschitz bound.

    python examples/certified_lipschitz.py

An equilibrium network z = σ(Wz + Ux + b), y = Gz + c learns a function of two variables from noisy samples, three times: with
a bound that is too small for the function, with one that is large enough, and without. The bound γ is no penalty that training
may trade away; the parametrisation of W makes |y(x) - y(x')| <= γ|x - x'| true at every step (Revay, Wang and Manchester, 2020).

For each network the script prints the error, the steepest slope found, and the bound that a check of the trained matrices
proves. Then it moves inputs against the network, and compares what happens with what was certified, the tolerance of the solver
included. It exits with 1 if any promise is broken. Needs equipoise and torch; a few seconds on one core.
"""

import sys

import torch
from torch import Tensor

from equipoise.deq import Implicit, Picard
from equipoise.deq.monotone import Monotone, certify, error_bound, gain

BOUNDS = (1.0, 4.0, None)
STEPS = 100
RADIUS = 0.1  # how far inputs are moved in the last check
# Plain iteration of the splitting is the quickest for so small a cell; leave `solver` out for a larger one. The tolerance is
# loose on purpose: what it costs is bounded below, sample by sample.
SOLVER = Picard(tolerance=1e-3, max_passes=1000)


def truth(x: Tensor) -> Tensor:
    """sin 3x₁ cos 2x₂, nowhere steeper than 3."""
    return (torch.sin(3 * x[:, 0]) * torch.cos(2 * x[:, 1]))[:, None]


def train(cell: Monotone, x: Tensor, y: Tensor) -> None:
    """Plain Adam: no projection, no penalty, no step-size rule is needed to keep the bound."""
    optimiser = torch.optim.Adam(cell.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        (cell(x) - y).square().mean().backward()
        optimiser.step()
        schedule.step()


def attack(cell: Monotone, x: Tensor) -> Tensor:
    """The inputs, each moved by RADIUS along its gradient."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cell(x).sum(), x)
    return x.detach() + RADIUS * torch.nn.functional.normalize(slope, dim=1)


def main() -> int:
    torch.manual_seed(0)
    x_train, x_test = 2 * torch.rand(64, 2) - 1, 2 * torch.rand(500, 2) - 1
    y_train, y_test = truth(x_train), truth(x_test)
    y_train = y_train + 0.2 * torch.randn_like(y_train)

    kept = True
    print("            root mean square error       slope           change when attacked")
    print(
        "prescribed      train     test      found  certified      found  certified  of which solver"
    )
    for bound in BOUNDS:
        cell = Monotone(2, 32, 1, lipschitz=bound, solver=SOLVER, gradient=Implicit(solver=SOLVER))
        train(cell, x_train, y_train)

        moved = attack(cell, x_test)
        with torch.no_grad():
            certificate = certify(cell)
            steepest = gain(cell, x_test).max()
            y, y_moved = cell(x_test), cell(moved)
            errors = [cell(x_train) - y_train, y - y_test]
            # |ŷ - ŷ'| <= γ|x - x'| + ε + ε', with ε a bound on the error of each solve.
            slack = error_bound(cell, x_test, y) + error_bound(cell, moved, y_moved)
            change = (y_moved - y).norm(dim=1)
            allowed = certificate.lipschitz * (moved - x_test).double().norm(dim=1) + slack
        worst = (change / allowed).argmax()
        print(
            f"{'none' if bound is None else bound:>10}  "
            + "".join(f"{error.square().mean().sqrt():9.3f}" for error in errors)
            + f"  {steepest:9.3f}  {certificate.lipschitz:9.3f}"
            + f"  {change[worst]:9.4f}  {allowed[worst]:9.4f}  {slack[worst]:15.4f}"
        )
        # Single-precision slopes are held against a bound computed in double precision.
        kept &= bool(steepest <= certificate.lipschitz * (1 + 1e-5))
        kept &= bool((change <= allowed).all())
        kept &= bound is None or certificate.lipschitz <= bound * (1 + 1e-9)

    print("every promise kept" if kept else "a promise was BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
