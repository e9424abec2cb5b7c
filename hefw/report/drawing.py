"""A drawing of a graph: nodes in rows by depth, affine regions, polynomials and inputs told apart."""

from __future__ import annotations

import io
import math

import matplotlib
from matplotlib.figure import Figure

from hefw.core.graph import Graph, Input, Polynomial, sources

COLUMN, ROW = 2.4, 0.75  # inches
LEAST_BEND, BEND, MOST_BEND = 0.5, 0.1, 2.0  # inches: how far an arrow past other nodes goes aside
FONT = 7  # points
LONGEST_LABEL = 30  # characters
FILL = {"input": "#fff1d6", "affine": "#dde7fb", "polynomial": "#dff3e3"}
EDGE = "#8a909c"


def depths(graph: Graph) -> dict[str, int]:
    """For each node, the most nodes between an input and it."""
    found: dict[str, int] = {}
    for name, node in graph.nodes.items():
        found[name] = 1 + max((found[source] for source in sources(node)), default=-1)
    return found


def draw(graph: Graph, form: str) -> bytes:
    """The drawing as bytes: `form` is svg or png. The same graph gives the same bytes."""
    level = depths(graph)
    beside: dict[int, int] = {}
    place: dict[str, tuple[float, float]] = {}
    for name in graph.nodes:
        count = beside.get(level[name], 0)
        beside[level[name]] = count + 1
        place[name] = (count * COLUMN, -level[name] * ROW)
    bends = {span: min(LEAST_BEND + BEND * span, MOST_BEND) for span in range(2, max(level.values()) + 1)}
    wide = COLUMN * max(beside.values()) + max(bends.values(), default=0)
    high = ROW * (max(level.values()) + 1)
    figure = Figure(figsize=(wide, high))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-COLUMN / 2, wide - COLUMN / 2)
    axes.set_ylim(-high + ROW / 2, ROW / 2)
    for name, node in graph.nodes.items():
        x, y = place[name]
        for source in sources(node):
            start = (place[source][0], place[source][1] - ROW * 0.27)
            length = math.dist(start, (x, y + ROW * 0.27))
            bend = -2 * bends.get(level[name] - level[source], 0.0) / length  # peaks so many inches beside the line
            arrow = {"arrowstyle": "->", "color": EDGE, "lw": 0.8, "connectionstyle": f"arc3,rad={bend:.3f}"}
            axes.annotate("", (x, y + ROW * 0.27), start, arrowprops=arrow, zorder=1)
        kind = "input" if isinstance(node, Input) else "polynomial" if isinstance(node, Polynomial) else "affine"
        label = name if len(name) <= LONGEST_LABEL else "…" + name[1 - LONGEST_LABEL :]
        box = {"boxstyle": "round,pad=0.4", "fc": FILL[kind], "ec": EDGE, "lw": 0.6}
        text = f"{label}\n{' x '.join(map(str, node.shape))}"
        axes.text(x, y, text, ha="center", va="center", fontsize=FONT, color="#16181d", bbox=box, zorder=2)
    out = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": graph.digest, "svg.fonttype": "none"}):
        figure.savefig(out, format=form, dpi=120, metadata=metadata, facecolor="#ffffff")
    return out.getvalue()
