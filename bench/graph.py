"""A graph of PrimeKG's size: building, reloading, memory, and proven items a second beside networkx.

    python bench/graph.py --out bench/results/graph_DATE.json           about ten minutes, 8 GB (networkx's share)

The graph is drawn: up to 129,375 nodes of PrimeKG's ten types and 8,000,000 different triples of its relations, ends by
a power law, written as a kg.csv. Each part runs in a process of its own, whose peak of resident memory is taken. The
same walk runs on both sides: ``NetworkxRows`` and ``NetworkxFacts`` answer the same questions from a
networkx.MultiDiGraph, and the items must be equal. The time of an item is drawing it and checking its proof; one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.proof import find_fault
from minifleming.rods.query import Facts
from minifleming.rods.question import ItemBuilder
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import Draws, Split, keep_all
from minifleming.rods.walk import Walker

NODES = {"disease": 17_080, "effect/phenotype": 15_311, "gene/protein": 27_671, "drug": 7_957, "anatomy": 14_035,
         "biological_process": 28_642, "molecular_function": 11_169, "cellular_component": 4_176, "pathway": 2_516,
         "exposure": 818}
EDGES = [  # relation, type of x, type of y, rows
    ("anatomy_protein_present", "anatomy", "gene/protein", 3_000_000), ("drug_drug", "drug", "drug", 2_700_000),
    ("protein_protein", "gene/protein", "gene/protein", 700_000),
    ("disease_phenotype_positive", "disease", "effect/phenotype", 310_000),
    ("bioprocess_protein", "biological_process", "gene/protein", 300_000),
    ("cellcomp_protein", "cellular_component", "gene/protein", 180_000),
    ("disease_protein", "disease", "gene/protein", 170_000),
    ("molfunc_protein", "gene/protein", "molecular_function", 150_000),
    ("drug_effect", "drug", "effect/phenotype", 140_000), ("pathway_protein", "gene/protein", "pathway", 90_000),
    ("disease_disease", "disease", "disease", 80_000), ("contraindication", "disease", "drug", 65_000),
    ("drug_protein", "drug", "gene/protein", 55_000), ("anatomy_protein_absent", "anatomy", "gene/protein", 35_000),
    ("indication", "disease", "drug", 20_000), ("exposure_disease", "disease", "exposure", 5_000),
]
POWER = 0.7  # the weight of the i-th node of a type is i^-POWER


def draw(seed: int, share: float) -> tuple[list[tuple], list[np.ndarray], list[np.ndarray]]:
    """For each relation: its description, and the numbers of its ends; no pair twice. ``share`` scales the rows."""
    rng = np.random.default_rng(seed)
    xs, ys = [], []
    for _, x, y, rows in EDGES:
        rows, pairs = int(rows * share), np.empty(0, np.int64)
        while len(pairs) < rows:
            a, b = (power_law(NODES[kind], rows, rng) for kind in (x, y))
            fresh = (a * NODES[y] + b)[(a != b) | (x != y)]
            pairs = np.unique(np.concatenate([pairs, fresh]))
        pairs = rng.permutation(pairs)[:rows]
        xs.append(pairs // NODES[y])
        ys.append(pairs % NODES[y])
    return EDGES, xs, ys


def power_law(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    edge = np.cumsum(np.arange(1, count + 1) ** -POWER)
    return np.minimum(edge.searchsorted(rng.random(size) * edge[-1]), count - 1)


def write_csv(path: Path, seed: int, share: float) -> int:
    """The kg.csv. -> its rows"""
    first = dict(zip(NODES, np.cumsum([0, *NODES.values()]).tolist()))
    described, xs, ys = draw(seed, share)
    with open(path, "w", encoding="utf-8") as file:
        file.write("relation,display_relation,x_index,x_id,x_type,x_name,x_source,y_index,y_id,y_type,y_name,y_source\n")
        for (relation, x, y, _), heads, tails in zip(described, xs, ys):
            for a, b in zip(heads.tolist(), tails.tolist()):
                file.write(f"{relation},{relation},{first[x] + a},{a},{x},{x} {a},drawn,"
                           f"{first[y] + b},{b},{y},{y} {b},drawn\n")
    return sum(map(len, xs))


class NetworkxRows:
    """What ``graph.Adjacency`` answers, from the adjacency of a MultiDiGraph: {node: {neighbour: {relation: ...}}}."""

    def __init__(self, adjacency):
        self.adjacency = adjacency

    def neighbors(self, node: int, relation: int) -> np.ndarray:
        return np.array(sorted(n for n, keys in self.adjacency[node].items() if relation in keys), np.int32)

    def edges(self, node: int) -> list[tuple[int, np.ndarray]]:
        found: dict[int, list[int]] = {}
        for neighbour, keys in self.adjacency[node].items():
            for relation in keys:
                found.setdefault(relation, []).append(neighbour)
        return [(relation, np.array(sorted(found[relation]), np.int32)) for relation in sorted(found)]

    def all_neighbors(self, node: int) -> np.ndarray:
        return np.array(list(self.adjacency[node]), np.int32)


class NetworkxFacts(Facts):
    """The checker's look-ups, from the same MultiDiGraph."""

    def __init__(self, graph: Graph, network):
        self.names, self.size = graph.names, len(graph)
        self.node_id, self.relation_id = graph.node_id, graph.relation_id
        self._equal_wording = {}
        self.types = dict(zip(graph.names, graph.types))
        self.network = network

    def tails(self, head: str, relation: str) -> set[str]:
        return self._across(self.network.succ, head, relation)

    def heads(self, tail: str, relation: str) -> set[str]:
        return self._across(self.network.pred, tail, relation)

    def _across(self, adjacency, near: str, relation: str) -> set[str]:
        if near not in self.node_id or relation not in self.relation_id:
            return set()
        code = self.relation_id[relation]
        return {self.names[n] for n, keys in adjacency[self.node_id[near]].items() if code in keys}


def items_of(graph: Graph, facts: Facts, count: int, limit: float) -> tuple[list, float]:
    """Up to ``count`` proven items in about ``limit`` seconds, and the seconds that they took."""
    begun, found = time.perf_counter(), []
    draws = Draws(ItemBuilder(Walker(graph)), np.random.default_rng([0, 0x5EED]), Split(), set())
    for number in range(count):
        if time.perf_counter() - begun > limit:
            break
        item = draws.next_item(1 + number % 3, keep_all)
        if item is not None:
            if find_fault(item, facts):
                raise SystemExit("an item failed its proof")
            found.append(item)
    return found, time.perf_counter() - begun


def part(name: str, path: Path, count: int, limit: float) -> dict:
    """One measurement, in this process."""
    begun = time.perf_counter()
    graph = load_graph(str(path))
    found = {"seconds": time.perf_counter() - begun, "triples": len(graph), "nodes": len(graph.names)}
    if name == "items":
        begun = time.perf_counter()
        facts = Facts(graph)
        found["facts_seconds"] = time.perf_counter() - begun
        items, found["seconds"] = items_of(graph, facts, count, limit)
        found |= {"items": len(items), "ids": [item.id for item in items]}
    if name == "networkx":
        import networkx

        begun = time.perf_counter()
        network = networkx.MultiDiGraph()
        network.add_nodes_from(range(len(graph.names)))
        network.add_edges_from((h, t, r) for h, r, t in graph.table.tolist())
        found["build_seconds"] = time.perf_counter() - begun
        graph.out, graph.into = NetworkxRows(network.succ), NetworkxRows(network.pred)
        items, found["seconds"] = items_of(graph, NetworkxFacts(graph, network), count, limit)
        found |= {"items": len(items), "ids": [item.id for item in items], "networkx": networkx.__version__}
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def apart(name: str, path: Path, count: int, limit: float, cache: Path) -> dict:
    """The same in a process of its own."""
    environment = os.environ | {"MINIFLEMING_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    ran = subprocess.run([sys.executable, __file__, "--part", name, "--graph", str(path), "--n", str(count),
                          "--seconds", str(limit)], env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{name}: {ran.stderr}")
    print(f"{name}: {ran.stdout[:200].strip()}", file=sys.stderr)
    return json.loads(ran.stdout)


def measure(folder: Path, count: int, limit: float, share: float) -> dict:
    path = folder / "kg.csv"
    rows = write_csv(path, 0, share)
    found = {"rows": rows, "csv_gb": path.stat().st_size / 2**30}
    found["build"] = apart("build", path, 0, 0, folder / "cache")
    found["reload"] = [apart("reload", path, 0, 0, folder / "cache") for _ in range(5)]
    found["networkx"] = apart("networkx", path, count, limit, folder / "cache")
    same = found["networkx"].pop("ids")
    rounds = [apart("items", path, len(same), 3600, folder / "cache") for _ in range(3)]
    found["equal_items"] = all(r.pop("ids") == same for r in rounds)
    found["items"] = rounds
    found["ratio"] = [found["networkx"]["seconds"] / r["seconds"] for r in rounds]
    return found


def markdown(found: dict) -> str:
    """The table of docs/graph.md."""
    reload = sorted(r["seconds"] for r in found["reload"])
    rate = sorted(r["items"] / r["seconds"] for r in found["items"])
    ratio, theirs = sorted(found["ratio"]), found["networkx"]
    peak = max(part["peak_gb"] for part in (found["build"], *found["reload"], *found["items"]))
    return "\n".join([
        "| | measured | aim |", "|---|---|---|",
        f"| first read of {found['rows']:,} rows, {found['csv_gb']:.2f} GiB | {found['build']['seconds']:.0f} s | |",
        f"| reload, median of 5 [lowest, highest] | {reload[2]:.2f} s [{reload[0]:.2f}, {reload[-1]:.2f}] | 3 s |",
        f"| highest peak of memory: read, reload, items | {peak:.2f} GiB | 3 GB |",
        f"| proven items per second, one core, median of 3 | {rate[1]:.1f} [{rate[0]:.1f}, {rate[-1]:.1f}] | |",
        f"| networkx: build, peak of memory, items per second | {theirs['build_seconds']:.0f} s, "
        f"{theirs['peak_gb']:.1f} GiB, {theirs['items'] / theirs['seconds']:.2f} | |",
        f"| the same {theirs['items']} items, times faster | {ratio[1]:.0f} [{ratio[0]:.0f}, {ratio[-1]:.0f}] | 20 |"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=3000, help="items at most")
    parser.add_argument("--seconds", type=float, default=120, help="for networkx's items, about")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a trial")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=["build", "reload", "items", "networkx"], help="one measurement: internal")
    parser.add_argument("--graph", type=Path, help="with --part")
    args = parser.parse_args()
    if args.part:
        print(json.dumps(part(args.part, args.graph, args.n, args.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.n, args.seconds, args.share)
    found |= {"date": date.today().isoformat(), "python": platform.python_version(), "numpy": np.__version__,
              "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    print(markdown(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
