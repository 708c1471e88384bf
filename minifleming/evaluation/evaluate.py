"""Runs a model over items, and keeps one graded record per completion (§4).

    runs/eval/medqa.jsonl                  the records, in the order of the items
    runs/eval/medqa.jsonl.settings.json    their settings: hashes of data, prompts and weights
    runs/eval/medqa.jsonl.part0            the records of rank 0 so far, while it runs

    {"item": "kg-2-5d41a2c07be9", "sample": 0, "hops": 2, "tier": "moderate", "rarity": 0.31,
     "source": "embedded", "options": 8, "answer": "B", "strict": "B", "rule": "ok", "lenient": "B",
     "kind": "ok", "finished": true, "tokens": 31, "support": "chain", "text": "<think>..."}

Every table is made from records, without generating again. A killed run loses no ended completion.
An item whose prompt is too long for the model gets empty completions, which count as truncated.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minifleming.evaluation.grade import grade
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder, weights_checksum
from minifleming.rods.answer import reasoning_of
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, read_jsonl
from minifleming.rods.readers import load_graph
from minifleming.rods.reasoning import support
from minifleming.run import distributed
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config
from minifleming.run.run_folder import bar, can_resume, complete_lines

FIELDS = ("item", "options", "answer", "strict", "rule", "lenient", "kind", "finished", "tokens",
          "support")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How many completions an item gets, and their temperature; 0 is greedy."""

    samples: int = 1
    temperature: float = 0.0


GREEDY = Decoding()


def evaluate(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item], cfg: Config, *,
             name: str, graph: Graph | None = None, part: Path | None = None,
             decoding: Decoding = GREEDY) -> list[dict]:
    """Returns the records of all items, computed on all ranks: by item, then by sample.

    Args:
        name: label of the progress bar.
        graph: where the hops that a reasoning states are looked up.
        part: each rank appends its records to this path plus its number. Items whose samples are
            all in such files, from any rank, are not sampled again.
    """
    records = earlier_records(part) if part else {}
    distributed.barrier()  # every rank reads before any rank writes
    kept = len(records)
    samples = range(decoding.samples)
    keys = list(itertools.product([item.id for item in items], samples))
    missing = {item_id for item_id, _ in set(keys) - records.keys()}
    mine = distributed.shard_list([item for item in items if item.id in missing])
    path = f"{part}{distributed.rank()}"
    with (open(path, "a", encoding="utf-8") if part else contextlib.nullcontext() as file,
          bar(total=len(keys), initial=kept, desc=f"eval {name}") as progress):
        for completion in completions(model, tokenizer, mine, cfg, decoding):
            record = record_of(*completion, graph)
            records[key_of(record)] = record
            if file:
                file.write(to_line(record))
                file.flush()
            progress.update(distributed.world_size())
    distributed.barrier()
    by_item = []
    for item in mine:
        by_item.append([records[item.id, sample] for sample in samples])
    for record in sum(distributed.all_gather(by_item, model.device), []):
        records[key_of(record)] = record
    return list(map(records.__getitem__, keys))


def completions(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item], cfg: Config,
                decoding: Decoding) -> Iterator[tuple[Item, int, str, int, bool]]:
    """Yields item, sample, text, number of tokens and whether it has an end token, as they end."""
    asked, prompts = [], []
    for item in items:
        prompt = tokenizer.encode(tokenizer.prompt(item.question, item.options))
        if len(prompt) < model.config.max_position_embeddings:
            asked.append(item)
            prompts.append(prompt)
        else:
            for sample in range(decoding.samples):
                yield item, sample, "", 0, False
    params = SamplingParams(cfg.eval.max_new_tokens, tokenizer.end_ids, seed=cfg.run.seed,
                            samples=decoding.samples, temperature=decoding.temperature,
                            max_num_seqs=cfg.rl.max_num_seqs)
    for rows in generate_stream(model, prompts, [item.id for item in asked], params):
        for row in rows:
            if row.ended:
                text = tokenizer.decode(row.ids[:-1] if row.finished else row.ids)
                yield asked[row.prompt], row.sample, text, len(row.ids), row.finished


def earlier_records(part: Path) -> dict[tuple[str, int], dict]:
    """Returns the records of a killed run, by item and sample."""
    found = {}
    for path in sorted(part.parent.glob(f"{part.name}*")):
        for number, line in complete_lines(path):
            try:
                record = json.loads(line)
                found[key_of(record)] = record
            except (ValueError, LookupError, TypeError):
                reason = "no evaluation record; remove the file to start again"
                raise BadInput(reason, path, number) from None
    return found


def key_of(record: dict) -> tuple[str, int]:
    return record["item"], record.get("sample", 0)


def evaluate_into(out: Path, model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item],
                  cfg: Config, *, run_fingerprint: dict, **how) -> list[dict]:
    """Returns the records in ``out``, which is read if an identical run has finished it.

    ``how``: keyword arguments of ``evaluate``. Raises BadInput if another run made ``out``.
    """
    part = out.with_name(out.name + ".part")
    done = can_resume(out, run_fingerprint) if distributed.rank() == 0 else out.exists()
    distributed.barrier()
    if done:
        return read_records(out)
    records = evaluate(model, tokenizer, items, cfg, part=part, **how)
    if distributed.rank() == 0:
        write_records(out, records)
        for path in part.parent.glob(f"{part.name}*"):
            path.unlink()
    distributed.barrier()
    return records


class Evaluator:
    """A model that answers items into files of records, on all ranks."""

    def __init__(self, cfg: Config, device: torch.device):
        folder = model_folder(cfg.model.base)
        self.cfg = cfg
        self.tokenizer = Tokenizer(folder)
        self.model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic)
        self.weights = weights_checksum(self.model)

    def ask(self, out: Path, items: Sequence[Item], name: str,
            decoding: Decoding = GREEDY) -> list[dict]:
        """Returns the records in ``out``; ``name`` identifies the items in its settings."""
        cfg = self.cfg
        graph = None
        if any(item.path for item in items):
            graph = load_graph(cfg.data.graph, cfg.data.columns)
        made = run_fingerprint(items, self.tokenizer, cfg, name, cfg.model.base, self.weights)
        if decoding != GREEDY:
            made |= asdict(decoding)
        return evaluate_into(out, self.model, self.tokenizer, items, cfg, name=name, graph=graph,
                             decoding=decoding, run_fingerprint=made)


def run_fingerprint(items: Sequence[Item], tokenizer: Tokenizer, cfg: Config, name: str, model: str,
                    weights: str) -> dict:
    """What identifies an evaluation. ``chance``: the mean accuracy of a blind guess."""
    files = set()
    for item in items:
        if "sha256" in item.provenance:
            files.add((item.provenance["file"], item.provenance["sha256"]))
    texts = (f"{i.id}\x1f{i.question}\x1f{json.dumps(i.options)}\x1f{i.answer}" for i in items)
    prompts = (tokenizer.prompt(item.question, item.options) for item in items)
    return {
        "benchmark": name, "n": len(items), "files": sorted(list(pair) for pair in files),
        "items_sha256": digest(texts), "prompts_sha256": digest(prompts),
        "model": model, "weights_sha256": weights, "dtype": cfg.model.dtype, "temperature": 0.0,
        "max_new_tokens": cfg.eval.max_new_tokens,
        "chance": sum(1 / len(item.options) for item in items) / len(items),
    }


def digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\x1e".join(texts).encode()).hexdigest()


def record_of(item: Item, sample: int, text: str, tokens: int, finished: bool,
              graph: Graph | None) -> dict:
    """Returns the graded record of a completion. ``text``: without its end token."""
    found = grade(text, item, finished)
    chosen = item.nodes(found.strict)[-1] if found.strict in item.options else ""
    hops = support(reasoning_of(text), chosen, graph) if graph and item.path else ""
    return {"item": item.id, "sample": sample, "hops": item.hops, "tier": item.tier,
            "rarity": item.rarity, "source": item.source, "options": len(item.options),
            "answer": item.answer, "strict": found.strict, "rule": found.rule,
            "lenient": found.lenient, "kind": found.kind, "finished": finished, "tokens": tokens,
            "support": hops, "text": text}


def is_correct(record: dict) -> bool:
    """Whether the strict reading is right: the headline."""
    return record["strict"] == record["answer"]


def to_line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def write_records(path: Path, records: list[dict]) -> None:
    write_text(path, "".join(map(to_line, records)))


def read_records(path: Path) -> list[dict]:
    """Returns the records of a file. Raises BadInput for a line that is none."""
    records = []
    for number, record in read_jsonl(path):
        for name in FIELDS:
            if name not in record:
                raise BadInput(f"no evaluation record: '{name}' is missing", path, number)
        records.append(record)
    if not records:
        raise BadInput("no evaluation records", path)
    return records


def read_folder(folder: Path) -> dict[str, list[dict]]:
    """Returns the records of each NAME.jsonl of a folder."""
    sets = {path.stem: read_records(path) for path in sorted(folder.glob("*.jsonl"))}
    if not sets:
        raise BadInput("no evaluation records", folder)
    return sets
