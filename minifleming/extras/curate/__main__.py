"""`python -m minifleming.rods.curate NAME=PATH ... --out F`: see arguments.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from minifleming.extras.curate.arguments import parser, settings, told
from minifleming.extras.curate.data_card import data_card
from minifleming.extras.curate.labels import read_votes
from minifleming.extras.curate.sources import parse, pool, read_sources
from minifleming.extras.curate.step import Dropped
from minifleming.extras.curate.steps import Curated, curate
from minifleming.extras.curate.tiers import read_tiers
from minifleming.rods.item import Item, write_items
from minifleming.run.checkpoint import ensure_writable, sha256, write_text
from minifleming.run.errors import BadInput, RunFailed, run_cli
from minifleming.run.journal import bar


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    chosen = settings(args)
    refuse_inputs(args)
    pairs, sources = read_sources(args.sets)
    against, benchmarks = read_sources(args.decontaminate)
    items = pool(pairs)
    missing = sorted(set(chosen.ratios.get("source", {})) - {item.source for item in items})
    if missing:
        raise BadInput(f"--mix: no item is of source '{missing[0]}'; there are "
                       f"{', '.join(sorted({item.source for item in items}))}")
    votes = read_votes(args.votes, items) if args.votes else None
    verdicts = read_tiers(args.tier_votes) if args.tier_votes else {}
    for path, told_of in ((args.votes, votes), (args.tier_votes, verdicts)):
        if path:
            print(covered(path, told_of, items))
    curated = curate(items, chosen, against=against, votes=votes, verdicts=verdicts, workers=args.workers,
                     progress=lambda steps: bar(steps, desc="curate"))
    if not curated.items:
        raise RunFailed("no item is left: " + "; ".join(f"{s.step} took {s.came - s.kept}" for s in curated.stages
                                                        if s.came > s.kept))
    shown = told(args) | {name: f"{path.name} sha256 {sha256(path)}" for name in ("votes", "tier_votes")
                          if (path := getattr(args, name))}
    text = data_card(args.out.name, curated, sources, benchmarks, shown, args.examples)
    write(args.out, curated, text)
    print(f"{len(curated.items)} of {len(items)} items in {args.out}; "
          f"{sum(d.quarantined for d in curated.left)} in quarantine"
          + (f"; the blend is short of {curated.blend.short}" if curated.blend.short else ""))
    return 0


def covered(path: Path, told_of: dict, items: list[Item]) -> str:
    """Returns a line on how many items have votes. Raises BadInput for none."""
    n = sum(item.id in told_of for item in items)
    if not n:
        raise BadInput(f"no line is on any of the {len(items)} items; the first is on '{next(iter(told_of))}'", path)
    return f"{path.name}: votes on {n} of {len(items)} items ({n / len(items):.1%})"


def refuse_inputs(args) -> None:
    """Raises BadInput if an output would overwrite an input."""
    ends = ("", ".dropped.jsonl", ".quarantine.jsonl", ".card.md")
    outputs = {beside(args.out, end).resolve() for end in ends}
    inputs = [parse(argument)[1] for argument in (*args.sets, *args.decontaminate)]
    for path in (*inputs, *filter(None, (args.votes, args.tier_votes))):
        if path.resolve() in outputs:
            raise BadInput("is an input, too; nothing is overwritten", path)
    ensure_writable(args.out)


def beside(out: Path, end: str) -> Path:
    return out.with_name(out.name + end)


def write(out: Path, curated: Curated, text: str) -> None:
    """Writes the items last: if they exist, the other files are complete."""
    left = curated.left
    write_text(beside(out, ".dropped.jsonl"), "".join(line(d) for d in left if not d.quarantined))
    write_text(beside(out, ".quarantine.jsonl"), "".join(line(d) for d in left if d.quarantined))
    write_text(beside(out, ".card.md"), text)
    write_items(out, curated.items)


def line(dropped: Dropped) -> str:
    record = {"item": dataclasses.asdict(dropped.item), "step": dropped.step, "reason": dropped.reason,
              "evidence": dropped.evidence}
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
