"""What stands on the card of a potential that comes with the package: for a terminal and for a page."""

from collections.abc import Sequence

from equipoise.potentials import Card
from equipoise.report.tables import Grid, number


def zoo_grid(cards: Sequence[Card]) -> Grid:
    """All of them, a row each."""
    rows = [
        (
            "\n".join((each.name, *each.aliases)),
            each.system,
            each.theory,
            number(each.test["energy_mae_mev_per_atom"]),
            number(each.test["force_mae_mev"]),
            f"{each.file.stat().st_size / 1e6:.1f}",
        )
        for each in cards
    ]
    headings = (
        "name",
        "for",
        "labels",
        "energy MAE (meV/atom)",
        "force MAE (meV/Å)",
        "size (MB)",
    )
    return Grid("Potentials that come with the package", headings, tuple(rows))


def markdown(card: Card) -> str:
    """The whole card."""
    test, look = card.test, card.test["examination"]
    rows = [
        ("for", card.system),
        ("trained on", f"{card.trained_on}; {card.theory}; licence of the data: {card.licence}"),
        ("trained with", f"`{card.command}`"),
        ("which took", f"{card.seconds / 60:.0f} minutes on {card.hardware}; seed {card.seed}"),
        ("tested on", f"{test['structures']:,} structures of {test['data']}"),
        ("energy MAE", _error(test, "energy_mae_mev", "meV")),
        ("energy MAE per atom", _error(test, "energy_mae_mev_per_atom", "meV/atom")),
        ("force MAE", _error(test, "force_mae_mev", "meV/Å")),
        ("force RMSE", _error(test, "force_rmse_mev", "meV/Å")),
        (
            "passes",
            f"{test['passes_forward']:.1f} + {test['passes_adjoint']:.1f} from nothing; "
            f"{test['unconverged']} of {test['structures']:,} did not converge",
        ),
        (
            "contraction",
            f"{look['contraction_mean']:.2f} on average, at most {look['contraction_max']:.2f} "
            f"({look['structures']} structures)",
        ),
        (
            "symmetry",
            f"forces off by {look['rotation']['force_relative']:.0e} of their size under rotations, "
            f"{look['mirror']['force_relative']:.0e} under mirrors",
        ),
        ("parameters", f"{look['parameters']:,}"),
        ("sha256", f"`{card.sha256}`"),
    ]
    names = " or ".join(f'`equipoise.load("{name}")`' for name in (*card.aliases, card.name))
    lines = [f"## {card.name}", "", f"{names}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    molecules = test.get("molecules") or []
    if len(molecules) > 1:
        lines += ["", "| molecule | energy MAE (meV) | force MAE (meV/Å) |", "|---|---:|---:|"]
        lines += [
            f"| {each['name']} | {number(each['energy_mae_mev'])} | {number(each['force_mae_mev'])} |"
            for each in molecules
        ]
    lines += ["", "Limits:", ""] + [f"- {limit}" for limit in card.limits]
    return "\n".join(lines) + "\n"


def _error(test: dict[str, object], name: str, unit: str) -> str:
    interval = test["intervals"].get(name)
    spread = f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
    return f"{number(test[name])}{spread} {unit}"
