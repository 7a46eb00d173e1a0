"""One look for every picture: few colours, told apart by colour-blind readers, and quiet axes.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), and each has one meaning.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1f2933"
MUTED = "#6b7785"
FAINT = "#d5dbe1"

MODEL = "#0072B2"  # this model, validation, fixed points reused from step to step
OTHER = "#E69F00"  # what it is compared with: training data, potential energy
COLD = "#D55E00"  # solved from nothing
KINETIC = "#009E73"
LEVEL = "#8a63a6"  # published levels

DENSITY = "cividis"  # made for colour-blind readers, light at the top end

RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e8ecf0",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 144,
}


def new_figure(width: float, height: float) -> Figure:
    """A figure of our own (inches), outside pyplot's global list, so nothing needs closing."""
    return Figure(figsize=(width, height), layout="constrained")


def label_line(axes: Axes, y: float, text: str, *, below: bool = False) -> None:
    """A dashed level across the axes, named at the right-hand end, above the line or below."""
    axes.axhline(y, color=LEVEL, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        text,
        (1, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, -2 if below else 2),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        fontsize=8.5,
        color=LEVEL,
    )
