"""The molecule moving: frames for the viewer in the page, and a strip of stills.

Radii and colours: covalent radii of ase, CPK-like colours of ase ("jmol_colors"), darkened until
they stand out from a white page.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from equipoise.report import style

# Two atoms are drawn bonded below this multiple of the sum of their covalent radii (the usual 1.2
# to 1.3: tight enough that two hydrogens of one CH3 stay apart, loose enough for a vibrating C-H).
BOND = 1.25
MOST_FRAMES = 240  # in the page: some seconds of film; 9 atoms are then about 60 kB
MOST_ATOMS = 400  # beyond this a canvas of drawn spheres stutters and explains nothing


def viewer_frames(frames: Sequence[Atoms]) -> dict[str, Any] | None:
    """The record that viewer.js plays: positions as rounded numbers, one list per frame.

    Positions are relative to the centre of the first frame's atoms, so drift of a whole molecule
    stays visible. Returns None if there is nothing to play: fewer than two frames, too many atoms,
    or atoms that change between frames.
    """
    if len(frames) < 2 or len(frames[0]) == 0 or len(frames[0]) > MOST_ATOMS:
        return None
    numbers = frames[0].numbers
    if any(len(atoms) != len(numbers) or (atoms.numbers != numbers).any() for atoms in frames):
        return None
    chosen = thin(len(frames), MOST_FRAMES)
    centre = _centre(frames[0])
    periodic = bool(frames[0].pbc.any())
    return {
        "symbols": [chemical_symbols[number] for number in numbers],
        "radii": [round(float(radius), 3) for radius in covalent_radii[numbers]],
        "colours": [_hex(colour_of(number)) for number in numbers],
        "bond": BOND,
        "cell": np.round(frames[0].cell.array, 3).tolist() if periodic else None,
        "origin": np.round(-centre, 3).tolist(),
        "labels": [_label(frames[index], index) for index in chosen],
        "positions": [
            np.round(frames[index].positions - centre, 3).ravel().tolist() for index in chosen
        ],
    }


def filmstrip(frames: Sequence[Atoms], *, stills: int = 6) -> Figure:
    """A row of stills through the trajectory, all seen from the same side at the same scale.

    Args:
        frames: at least one.
        stills: how many, evenly spaced.
    """
    chosen = thin(len(frames), stills)
    axes_of_view = _view(frames[0])
    views = [(frames[index].positions - _centre(frames[index])) @ axes_of_view for index in chosen]
    half_width, half_height = (
        max(np.abs(view[:, axis]).max() for view in views) + 0.6 for axis in (0, 1)
    )
    figure = style.new_figure(
        9, float(np.clip(9 / len(chosen) * half_height / half_width, 1.2, 4)) + 0.3
    )
    row = np.atleast_1d(figure.subplots(1, len(chosen)))
    for axes, index, view in zip(row, chosen, views, strict=True):
        _draw(axes, view, frames[index].numbers)
        axes.set(xlim=(-half_width, half_width), ylim=(-half_height, half_height), aspect="equal")
        axes.set_axis_off()
        axes.set_title(
            _label(frames[index], index), fontsize=8.5, fontweight="normal", loc="center"
        )
    return figure


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices out of `count`, evenly spaced, first and last included."""
    if count <= most:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, most).round()]


def colour_of(number: int) -> tuple[float, float, float]:
    """RGB in 0..1 of an element, dark enough to be seen on white."""
    colour = np.asarray(jmol_colors[number], float)
    if number == 1:
        return (0.86, 0.88, 0.90)
    if number == 6:
        return (0.33, 0.37, 0.41)
    return tuple(float(part) for part in colour * min(1.0, 0.75 / max(colour.mean(), 1e-9)))


def _draw(axes: Axes, view: np.ndarray, numbers: np.ndarray) -> None:
    radii = covalent_radii[numbers]
    depth = view[:, 2]
    fog = (depth - depth.min()) / max(np.ptp(depth), 1e-9)  # 0 at the back, 1 in front
    distance = np.linalg.norm(view[:, None] - view[None], axis=-1)
    bonded = np.argwhere(np.triu(distance < BOND * (radii[:, None] + radii[None]), 1))
    for i, j in bonded:
        middle = (view[i] + view[j]) / 2
        for atom in (i, j):
            # From the ball's surface: a bond towards us must not be drawn across its own ball.
            start = view[atom] + (middle - view[atom]) * 0.84 * radii[atom] / (radii[i] + radii[j])
            axes.plot(
                (start[0], middle[0]),
                (start[1], middle[1]),
                color=_shade(colour_of(numbers[atom]), 0.82),
                linewidth=3.2,
                zorder=3 + (start[2] + middle[2]) / 2 * 1e-3,
            )
    for (x, y, z), number, radius, near in zip(view, numbers, radii, fog, strict=True):
        size = radius * 0.42 * (0.9 + 0.2 * near)
        colour = colour_of(number)
        rim = _shade(colour, 0.55)
        zorder = 3 + z * 1e-3
        axes.add_patch(
            Circle((x, y), size, facecolor=colour, edgecolor=rim, linewidth=0.8, zorder=zorder)
        )
        glint = Circle((x - size * 0.3, y + size * 0.3), size * 0.32, zorder=zorder + 1e-5)
        glint.set(facecolor="white", alpha=0.55, linewidth=0)
        axes.add_patch(glint)


def _view(atoms: Atoms) -> np.ndarray:
    """A rotation whose columns are the axes of the picture; the longest extent is horizontal."""
    _, _, axes = np.linalg.svd(atoms.positions - _centre(atoms))
    rotation = axes.T if axes.shape == (3, 3) else np.eye(3)
    if np.linalg.det(rotation) < 0:  # a mirror image would be another molecule
        rotation = rotation * np.array([1, 1, -1])
    # Seen exactly along an axis, atoms hide one another: turn a little.
    tilt, turn = 0.35, 0.45
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    about_y = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    return rotation @ about_y @ about_x


def _label(atoms: Atoms, index: int) -> str:
    for key, unit in (("time_fs", "fs"), ("step", "")):
        if key in atoms.info:
            value = float(atoms.info[key])
            return f"{value:,.0f} {unit}" if unit else f"step {value:,.0f}"
    return f"frame {index}"


def _centre(atoms: Atoms) -> np.ndarray:
    return atoms.positions.mean(axis=0)


def _shade(colour: tuple[float, float, float], factor: float) -> tuple[float, ...]:
    return tuple(part * factor for part in to_rgb(colour))


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(part * 255):02x}" for part in colour)
