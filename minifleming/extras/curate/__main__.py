"""`python -m minifleming.rods.curate NAME=PATH ... --out F`: see arguments.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from minifleming.extras.curate.arguments import parser, settings, shown_arguments
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
    present = sorted({item.source for item in items})
    missing = sorted(set(chosen.ratios.get("source", {})) - set(present))
    if missing:
        known = ", ".join(present)
        raise BadInput(f"--mix: no item is of source '{missing[0]}'; there are {known}")
    votes = read_votes(args.votes, items) if args.votes else None
    verdicts = read_tiers(args.tier_votes) if args.tier_votes else {}
    shown = shown_arguments(args)
    for name, by_item in (("votes", votes), ("tier_votes", verdicts)):
        path = getattr(args, name)
        if path:
            print(coverage(path, by_item, items))
            shown[name] = f"{path.name} sha256 {sha256(path)}"
    curated = curate(items, chosen, against=against, votes=votes, verdicts=verdicts,
                     workers=args.workers, progress=lambda steps: bar(steps, desc="curate"))
    if not curated.items:
        taken = [f"{s.step} took {s.came - s.kept}" for s in curated.stages if s.came > s.kept]
        raise RunFailed(f"no item is left: {'; '.join(taken)}")
    text = data_card(args.out.name, curated, sources, benchmarks, shown, args.examples)
    write(args.out, curated, text)
    quarantined = sum(dropped.quarantined for dropped in curated.left)
    short = curated.blend.short
    print(f"{len(curated.items)} of {len(items)} items in {args.out}; {quarantined} in quarantine"
          + (f"; the blend is short of {short}" if short else ""))
    return 0


def coverage(path: Path, by_item: dict, items: list[Item]) -> str:
    """Returns a line on how many items have votes. Raises BadInput for none."""
    n = sum(item.id in by_item for item in items)
    if not n:
        first = next(iter(by_item))
        reason = f"no line is on any of the {len(items)} items; the first is on '{first}'"
        raise BadInput(reason, path)
    return f"{path.name}: votes on {n} of {len(items)} items ({n / len(items):.1%})"


def refuse_inputs(args) -> None:
    """Raises BadInput if an output would overwrite an input."""
    ends = ("", ".dropped.jsonl", ".quarantine.jsonl", ".card.md")
    outputs = {with_suffix(args.out, end).resolve() for end in ends}
    inputs = [parse(argument)[1] for argument in (*args.sets, *args.decontaminate)]
    for path in (*inputs, *filter(None, (args.votes, args.tier_votes))):
        if path.resolve() in outputs:
            raise BadInput("is an input, too; nothing is overwritten", path)
    ensure_writable(args.out)


def with_suffix(out: Path, end: str) -> Path:
    return out.with_name(out.name + end)


def write(out: Path, curated: Curated, text: str) -> None:
    """Writes the items last: if they exist, the other files are complete."""
    dropped = [line(d) for d in curated.left if not d.quarantined]
    quarantined = [line(d) for d in curated.left if d.quarantined]
    write_text(with_suffix(out, ".dropped.jsonl"), "".join(dropped))
    write_text(with_suffix(out, ".quarantine.jsonl"), "".join(quarantined))
    write_text(with_suffix(out, ".card.md"), text)
    write_items(out, curated.items)


def line(dropped: Dropped) -> str:
    record = {"item": dataclasses.asdict(dropped.item), "step": dropped.step,
              "reason": dropped.reason, "evidence": dropped.evidence}
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
