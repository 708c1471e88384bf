"""Run a model over a set of items, greedily, and keep one record an item.

    eval/rl_stage1.heldout.jsonl
    {"item": "kg-2-5d41a2c07be9", "answer": "B", "strict": "B", "rule": "ok", "lenient": "B", "finished": true,
     "tokens": 31, "support": "chain", "text": "<think>..."}

Every table is made from these records, without generating anything again.
"""

from __future__ import annotations

import json
from pathlib import Path

from minifleming.evaluation.grade import grade
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import sample
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.answer import reasoning_of
from minifleming.rods.graph import Graph
from minifleming.rods.hops import support
from minifleming.rods.item import Item, read_jsonl
from minifleming.run import parallel
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config
from minifleming.run.progress import bar

FIELDS = ("item", "answer", "strict", "rule", "lenient", "finished", "tokens", "support")


def evaluate(model: LanguageModel, tokenizer: Tokenizer, items: list[Item], cfg: Config, *, name: str,
             graph: Graph | None = None) -> list[dict]:
    """Greedy completions of all items over all ranks, graded; in the order of the items."""
    mine = parallel.share(items)
    prompts = [tokenizer.encode(tokenizer.prompt(item.question, item.options)) for item in mine]
    with bar(total=len(items), desc=f"eval {name}") as progress:
        completions = sample(model, prompts, [item.id for item in mine], temperature=0.0,
                             max_new_tokens=cfg.eval.max_new_tokens, end_ids=tokenizer.end_ids,
                             slots=cfg.rl.rollout_slots,
                             done=lambda ended: progress.update(ended * parallel.world_size()))
    records = []
    for item, c in zip(mine, completions):
        text = tokenizer.decode(c.ids[:-1] if c.finished else c.ids)
        found = grade(text, item, c.finished)
        chosen = item.nodes(found.strict)[-1] if found.strict in item.options else ""
        how = support(reasoning_of(text), chosen, graph) if graph and item.path else ""
        records.append({"item": item.id, "hops": item.hops, "tier": item.tier, "answer": item.answer,
                        "strict": found.strict, "rule": found.rule, "lenient": found.lenient,
                        "finished": c.finished, "tokens": len(c.ids), "support": how, "text": text})
    return parallel.all_gather(records, model.device)


def write_records(path: Path, records: list[dict]) -> None:
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_records(path: Path) -> list[dict]:
    """The records of a file; a line that is none is refused with file and line."""
    records = []
    for number, record in read_jsonl(path):
        missing = [name for name in FIELDS if name not in record]
        if missing:
            raise BadInput(f"no evaluation record: '{missing[0]}' is missing", path, number)
        records.append(record)
    if not records:
        raise BadInput("no evaluation records", path)
    return records


def right(record: dict) -> bool:
    """Strictly right: the headline."""
    return record["strict"] == record["answer"]
