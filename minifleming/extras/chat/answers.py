"""Samples completions of many prompts into one JSONL file, from which a killed run resumes.

One line per completion: ``id, sample, prompt_ids, completion_ids, text, logprobs, finish_reason``.
``logprobs`` are natural, one per completion id, the end token included; ``finish_reason`` is "stop"
(an end token) or "length". ``F.settings.json`` next to the file says how it was made; a run with
other settings, another model or other prompts does not continue it. The finished file is in the
order of the prompts.

A resumed run samples what the interrupted one would have sampled, up to rounding (to the bit with
``run.deterministic``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

from minifleming.extras.chat.styles import conversation
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import Completion, SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.item import read_items
from minifleming.run.checkpoint import read_text, write_text
from minifleming.run.errors import BadInput
from minifleming.run.run_folder import can_resume, complete_lines

Lines = dict[tuple[str, int], str]  # by prompt and sample


def answer_all(model: LanguageModel, tokenizer: Tokenizer, prompts: dict[str, list[int]], out: Path,
               params: SamplingParams, kept: Lines, done: Callable[[int], object]) -> int:
    """Writes ``params.samples`` completions of every prompt (ids by name) to ``out``.

    ``kept`` has the lines of an earlier run. Returns the number of lines in the file.
    """
    done(len(kept))
    wanted = list(product(prompts, range(params.samples)))
    missing = list(dict.fromkeys(name for name, sample in wanted if (name, sample) not in kept))
    with open(out, "a", encoding="utf-8") as file:
        for rows in generate_stream(model, [prompts[name] for name in missing], missing, params):
            for row in rows:
                key = missing[row.prompt], row.sample
                if row.ended and key not in kept:
                    kept[key] = completion_line(key[0], prompts[key[0]], row, tokenizer)
                    file.write(kept[key])
                    file.flush()
                    done(1)
    write_text(out, "".join(kept[key] for key in wanted))
    return len(kept)


def completion_line(name: str, prompt: list[int], row: Completion, tokenizer: Tokenizer) -> str:
    record = {"id": name, "sample": row.sample, "prompt_ids": prompt, "completion_ids": row.ids,
              "text": tokenizer.decode(row.ids), "logprobs": row.logprobs,
              "finish_reason": "stop" if row.finished else "length"}
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def resume(out: Path, prompts: dict[str, list[int]], samples: int, run_fingerprint: dict) -> Lines:
    """The lines of an earlier run, without a torn last one. Raises BadInput for another run's file.

    ``run_fingerprint``: what identifies a run, the model and the settings of sampling.
    """
    kept: Lines = {}
    if not can_resume(out, run_fingerprint):
        return kept
    for number, line in complete_lines(out):
        try:
            row = json.loads(line)
            key = row["id"], row["sample"]
            known = prompts.get(key[0]) == row["prompt_ids"] and key[1] in range(samples)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            reason = "is not a completion of these prompts; nothing is overwritten"
            raise BadInput(reason, out, number)
        kept[key] = line + "\n"
    return kept


def check(args) -> None:
    """Raises BadInput for flags of generate.py that are missing or out of range."""
    if (args.items or args.prompts) and not args.out:
        raise BadInput("--out: name the file for the completions")
    for name, least in (("temperature", 0), ("max_new_tokens", 1), ("samples", 1)):
        value = getattr(args, name)
        if not least <= value < float("inf"):
            raise BadInput(f"--{name.replace('_', '-')}: {value} is out of range")


def read_prompts(args, tokenizer: Tokenizer, positions: int) -> dict[str, list[int]]:
    """Token ids by name: an item's own id, or the number of a line.

    Raises BadInput for a prompt that leaves no position for an answer.
    """
    texts = {}
    if args.items:
        for item in read_items(args.items):
            texts[item.id] = tokenizer.prompt(item.question, item.options)
    else:
        lines = read_text(args.prompts).removeprefix("\ufeff").split("\n")
        system = [("system", args.system)] if args.system else []
        for number, line in enumerate(lines, 1):
            question = ("user", line.rstrip("\r").replace("\\n", "\n"))
            if line.strip():
                thinking = not args.no_thinking
                texts[str(number)] = conversation(tokenizer, [*system, question], thinking)
    if not texts:
        raise BadInput("no prompts", args.prompts)
    prompts = {name: tokenizer.encode(text) for name, text in texts.items()}
    for name, ids in prompts.items():
        if not 0 < len(ids) < positions:
            reason = f"prompt '{name}' has {len(ids)} tokens; the model has {positions} positions"
            raise BadInput(reason, args.items or args.prompts)
    return prompts
