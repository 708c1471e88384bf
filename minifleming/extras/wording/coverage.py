"""Coverage: which part of the graph the items touch, with the weights of the walk and with none.

    | walk | items | any node rare | root rare for its type | answer rare for its type | different nodes touched |
    | topological (rarity 0.5, boost 2) | 2000 | 76.5 [74.6, 78.3] | 63.7 [61.6, 65.8] | 77.2 [75.3, 78.9] | 1819 |
    | uniform                           | 2000 | ...

A node is rare if its degree is at most the median: over all nodes in the first column, over the nodes of its own type
in the others (a disease has more edges than most findings). An item touches the nodes of its visible triples. The
uniform walk draws roots and next nodes with equal weight and is else the same.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item

UNIFORM = {"rarity": 0.0, "rare_boost": 1.0}
COLUMNS = ("any node rare", "root rare for its type", "answer rare for its type")


def touched(item: Item, graph: Graph) -> list[int]:
    """The numbers of the nodes of the item's visible triples, each once."""
    names = dict.fromkeys(name for head, _, tail in item.visible for name in (head, tail))
    return [graph.number[name] for name in names]


def rare_nodes(graph: Graph) -> np.ndarray:
    """Is the degree of each node at most the median? [nodes]"""
    degrees = graph.degrees()
    return degrees <= np.median(degrees)


def rare_in_kind(graph: Graph) -> np.ndarray:
    """Is the degree of each node at most the median of its type? [nodes]"""
    degrees, rare = graph.degrees(), np.zeros(len(graph.names), bool)
    for kind in range(int(graph.kind.max()) + 1):
        rare[graph.kind == kind] = degrees[graph.kind == kind] <= np.median(degrees[graph.kind == kind])
    return rare


def counts(items: list[Item], graph: Graph) -> tuple[int, int, int]:
    """How many items touch a rare node, ask about a rare root, have a rare answer."""
    rare, in_kind = rare_nodes(graph), rare_in_kind(graph)
    any_node = sum(bool(rare[touched(item, graph)].any()) for item in items)
    root = sum(bool(in_kind[graph.number[item.provenance["root"]]]) for item in items)
    answer = sum(bool(in_kind[graph.number[item.nodes(item.answer)[-1]]]) for item in items)
    return any_node, root, answer


def table(walks: dict[str, list[Item]], graph: Graph, interval: Callable[[int, int], tuple[float, float]]) -> str:
    """Markdown: a row a walk, shares in % with their intervals."""
    lines = [f"| walk | items | {' | '.join(COLUMNS)} | different nodes touched |", "|---|---|---|---|---|---|"]
    for name, items in walks.items():
        cells = []
        for count in counts(items, graph):
            low, high = interval(count, len(items))
            cells.append(f"{100 * count / len(items):.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        nodes = {node for item in items for node in touched(item, graph)}
        lines.append(f"| {name} | {len(items)} | {' | '.join(cells)} | {len(nodes)} |")
    rare, median = rare_nodes(graph), int(np.median(graph.degrees()))
    lines += ["", f"Rare: degree at most {median}, the median, as {100 * rare.mean():.1f} % of the {len(rare):,} nodes "
                  "are. Shares in % with 95 % Wilson intervals."]
    return "\n".join(lines)


def by_decile(items: list[Item], graph: Graph) -> np.ndarray:
    """The share of touches that falls to each tenth of the nodes, the least connected first. [10]"""
    degrees = graph.degrees()
    place = np.empty(len(degrees))
    place[np.argsort(degrees, kind="stable")] = np.arange(len(degrees)) * 10 // len(degrees)
    touches = np.array([node for item in items for node in touched(item, graph)])
    found = np.bincount(place[touches].astype(int), minlength=10)
    return found / max(found.sum(), 1)


def plot(walks: dict[str, list[Item]], graph: Graph) -> str | None:
    """The touches by tenth of the degrees as SVG; None without matplotlib (the [plot] extra)."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.hashsalt": "minifleming", "axes.spines.top": False,
                     "axes.spines.right": False}):
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(walks)
        for i, (name, items) in enumerate(walks.items()):
            axes.bar(np.arange(10) + i * width, by_decile(items, graph), width, label=name,
                     color=("#336699", "#bbbbbb", "#4c9f70")[i % 3])
        axes.set_xticks(np.arange(10) + 0.4 - width / 2, [str(n) for n in range(1, 11)])
        axes.set_xlabel("tenth of the nodes by degree, the least connected first")
        axes.set_ylabel("share of the touched nodes")
        axes.legend(frameon=False)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()
