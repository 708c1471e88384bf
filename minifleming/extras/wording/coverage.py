"""Coverage: which part of the graph the items touch, with the weights of the walk and without.

    | walk | items | any node rare | root rare for its type | answer rare for its type | nodes |
    | topological (rarity 0.5, boost 2) | 2000 | 76.5 [74.6, 78.3] | 63.7 ... | 77.2 ... | 1819 |
    | uniform                           | 2000 | ...

A node is rare if its degree is at most the median: over all nodes in the first column, over the
nodes of its type in the other two (a disease has more edges than most findings). An item touches
the nodes of its visible triples. The uniform walk draws roots and next nodes with equal weights;
everything else is the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minifleming.evaluation.statistics import wilson
from minifleming.extras.reports import plots
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.run.checkpoint import write_text

COLUMNS = ("any node rare", "root rare for its type", "answer rare for its type")
TENTHS = 10


def write(folder: Path, walks: dict[str, list[Item]], graph: Graph) -> None:
    """Writes coverage.md and coverage.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(walks, graph)
    write_text(folder / "coverage.md", text + "\n")
    write_text(folder / "coverage.svg", plot(walks, graph))
    print(text)


def touched(item: Item, graph: Graph) -> list[int]:
    """Returns the ids of the nodes of the item's visible triples, each once."""
    names: dict[str, None] = {}
    for head, _, tail in item.visible:
        names[head] = names[tail] = None
    return [graph.node_id[name] for name in names]


def rare_nodes(graph: Graph) -> np.ndarray:
    """Returns whether the degree of each node is at most the median. [nodes]"""
    degrees = graph.degrees()
    return degrees <= np.median(degrees)


def rare_in_type(graph: Graph) -> np.ndarray:
    """Returns whether the degree of each node is at most the median of its type. [nodes]"""
    degrees = graph.degrees()
    rare = np.zeros(len(graph.names), bool)
    for type_id in range(int(graph.type_ids.max()) + 1):
        members = graph.type_ids == type_id
        rare[members] = degrees[members] <= np.median(degrees[members])
    return rare


def counts(items: list[Item], graph: Graph) -> tuple[int, int, int]:
    """Returns how many items touch a rare node, have a rare root, have a rare answer."""
    rare, in_type = rare_nodes(graph), rare_in_type(graph)
    any_node = root = answer = 0
    for item in items:
        any_node += bool(rare[touched(item, graph)].any())
        root += bool(in_type[graph.node_id[item.provenance["root"]]])
        answer += bool(in_type[graph.node_id[item.nodes(item.answer)[-1]]])
    return any_node, root, answer


def table(walks: dict[str, list[Item]], graph: Graph) -> str:
    """Returns Markdown with one row per walk: shares in % with their intervals."""
    lines = [f"| walk | items | {' | '.join(COLUMNS)} | different nodes touched |",
             "|---|---|---|---|---|---|"]
    for name, items in walks.items():
        cells = []
        for count in counts(items, graph):
            low, high = wilson(count, len(items))
            cells.append(f"{100 * count / len(items):.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        nodes: set[int] = set()
        for item in items:
            nodes.update(touched(item, graph))
        lines.append(f"| {name} | {len(items)} | {' | '.join(cells)} | {len(nodes)} |")
    rare, median = rare_nodes(graph), int(np.median(graph.degrees()))
    lines += ["", f"Rare: degree at most {median}, the median, as {100 * rare.mean():.1f} % of the "
                  f"{len(rare):,} nodes are. Shares in % with 95 % Wilson intervals."]
    return "\n".join(lines)


def by_decile(items: list[Item], graph: Graph) -> np.ndarray:
    """Returns the share of touches per tenth of the nodes, the least connected first. [10]"""
    degrees = graph.degrees()
    tenth = np.empty(len(degrees), int)
    tenth[np.argsort(degrees, kind="stable")] = np.arange(len(degrees)) * TENTHS // len(degrees)
    found = np.zeros(TENTHS)
    for item in items:
        np.add.at(found, tenth[touched(item, graph)], 1)
    return found / max(found.sum(), 1)


def plot(walks: dict[str, list[Item]], graph: Graph) -> str:
    """Returns an SVG of the touches per tenth of the nodes."""
    lines = []
    for color, (name, items) in zip(plots.COLORS, walks.items()):
        shares = by_decile(items, graph).tolist()
        lines.append(plots.Line(name, list(enumerate(shares, 1)), color, marked=True))
    label = "tenth of the nodes by degree, the least connected first"
    ticks = {n: str(n) for n in range(1, TENTHS + 1)}
    return plots.grid(label, [plots.Chart("Share of the touched nodes", lines, label, ticks)])
