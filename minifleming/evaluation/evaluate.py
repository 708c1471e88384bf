"""Run a model over a set of items, greedily or with several samples; a killed run loses no finished item.

    runs/eval/medqa.jsonl                  one record an item (records.py), in the order of the set
    runs/eval/medqa.jsonl.settings.json    what made it: hashes of data, prompts and weights, decoding, chance
    runs/eval/medqa.jsonl.part0            while it runs: the records of rank 0 so far

An item whose prompt leaves the model no room is not asked: it counts, as truncated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from minifleming.evaluation.records import read_records, record_of, to_line, write_records
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.run import distributed
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config
from minifleming.run.journal import bar, can_resume, complete_lines


def evaluate(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item], cfg: Config, *, name: str,
             graph: Graph | None = None, part: Path | None = None, samples: int = 1, temperature: float = 0.0
             ) -> list[dict]:
    """Completions of all items over all ranks, graded; in the order of the items, an item's samples in theirs.

    ``part``: each rank appends the records of ended completions to this name and its number; an item whose samples all
    stand there already, of any rank, is not asked again.
    """
    kept = earlier(part) if part else {}
    distributed.barrier()  # all have read before one writes
    mine = distributed.shard_list([item for item in items if any((item.id, s) not in kept for s in range(samples))])
    prompts = {item.id: tokenizer.encode(tokenizer.prompt(item.question, item.options)) for item in mine}
    room = model.config.max_position_embeddings
    asked = [item for item in mine if len(prompts[item.id]) < room]
    found = [record_of(item, "", 0, False, graph, s) for item in mine if len(prompts[item.id]) >= room
             for s in range(samples)]
    file = open(f"{part}{distributed.rank()}", "a", encoding="utf-8") if part else None
    try:
        with bar(total=len(items) * samples, initial=len(kept), desc=f"eval {name}") as progress:
            params = SamplingParams(cfg.eval.max_new_tokens, tokenizer.end_ids, samples=samples,
                                    temperature=temperature, seed=cfg.run.seed, max_num_seqs=cfg.rl.max_num_seqs)
            keys = [item.id for item in asked]
            for rows in generate_stream(model, [prompts[key] for key in keys], keys, params):
                for row in (row for row in rows if row.ended):
                    text = tokenizer.decode(row.ids[:-1] if row.finished else row.ids)
                    found.append(record_of(asked[row.prompt], text, len(row.ids), row.finished, graph,
                                           row.sample))
                    if file:
                        file.write(to_line(found[-1]))
                        file.flush()
                    progress.update(distributed.world_size())
    finally:
        if file:
            file.close()
    distributed.barrier()
    by_key = {key_of(record): record for record in found}
    gathered = distributed.all_gather([[by_key[item.id, s] for s in range(samples)] for item in mine], model.device)
    known = kept | {key_of(record): record for row in gathered for record in row}
    return [known[item.id, s] for item in items for s in range(samples)]


def key_of(record: dict) -> tuple[str, int]:
    return record["item"], record.get("sample", 0)


def earlier(part: Path) -> dict[tuple[str, int], dict]:
    """Records of ended completions that a killed run left, by item and sample."""
    found = {}
    for path in sorted(part.parent.glob(f"{part.name}*")):
        for number, line in complete_lines(path):
            try:
                record = json.loads(line)
                found[key_of(record)] = record
            except (ValueError, LookupError, TypeError):
                raise BadInput("no evaluation record; remove the file to begin anew", path, number) from None
    return found


def evaluate_into(out: Path, model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item], cfg: Config, *,
                  name: str, run_fingerprint: dict, **how) -> list[dict]:
    """Records in ``out``, read if an equal run ended there before. Raises BadInput if another run made them."""
    part = out.with_name(out.name + ".part")
    ended = can_resume(out, run_fingerprint) if distributed.rank() == 0 else out.exists()
    distributed.barrier()
    if ended:
        return read_records(out)
    found = evaluate(model, tokenizer, items, cfg, name=name, part=part, **how)
    if distributed.rank() == 0:
        write_records(out, found)
        for path in part.parent.glob(f"{part.name}*"):
            path.unlink()
    distributed.barrier()
    return found


def run_fingerprint(items: Sequence[Item], tokenizer: Tokenizer, cfg: Config, name: str, model: str, weights: str) -> dict:
    """What identifies an evaluation; ``chance`` is the accuracy of a blind guess among each item's options."""
    def digest(texts) -> str:
        return hashlib.sha256("\x1e".join(texts).encode()).hexdigest()

    files = sorted({(p["file"], p["sha256"]) for p in (item.provenance for item in items) if "sha256" in p})
    return {"benchmark": name, "n": len(items), "files": [list(pair) for pair in files],
            "items_sha256": digest(f"{i.id}\x1f{i.question}\x1f{json.dumps(i.options)}\x1f{i.answer}" for i in items),
            "prompts_sha256": digest(tokenizer.prompt(i.question, i.options) for i in items),
            "model": model, "weights_sha256": weights, "dtype": cfg.model.dtype, "temperature": 0.0,
            "max_new_tokens": cfg.eval.max_new_tokens, "chance": sum(1 / len(i.options) for i in items) / len(items)}
