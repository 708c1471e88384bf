"""Completions of many prompts in one JSONL file, written as they end, so that a killed run goes on where it was.

One line a completion: ``id, sample, prompt_ids, completion_ids, text, logprobs, finish_reason``. ``logprobs`` are
natural, one per completion id, the end token included; ``finish_reason`` is "stop" (an end token) or "length". A file
beside it, ``F.settings.json``, says how it was made; other settings, another model or other prompts do not go on with
it. The finished file stands in the order of the prompts.

What is sampled after an interruption is what would have been sampled without it, up to the rounding of products of
other shapes (to the bit with ``run.deterministic``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import Completion, SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput
from minifleming.run.journal import can_resume, complete_lines


def answer_all(model: LanguageModel, tokenizer: Tokenizer, prompts: dict[str, list[int]], out: Path,
               params: SamplingParams, *, kept: dict[tuple[str, int], str], done: Callable[[int], None] = lambda count: None) -> int:
    """``params.samples`` completions of every prompt (ids by name) in ``out``, those of ``resume`` among them.

    -> lines in the file
    """
    done(len(kept))
    missing = [name for name in prompts if any((name, s) not in kept for s in range(params.samples))]
    with open(out, "a", encoding="utf-8") as file:
        for rows in generate_stream(model, [prompts[name] for name in missing], missing, params):
            for row in rows:
                name = missing[row.prompt]
                if row.ended and (name, row.sample) not in kept:
                    kept[name, row.sample] = line(name, prompts[name], row, tokenizer)
                    file.write(kept[name, row.sample])
                    file.flush()
                    done(1)
    order = {name: i for i, name in enumerate(prompts)}
    write_text(out, "".join(kept[at] for at in sorted(kept, key=lambda at: (order[at[0]], at[1]))))
    return len(kept)


def line(name: str, prompt: list[int], row: Completion, tokenizer: Tokenizer) -> str:
    return json.dumps({"id": name, "sample": row.sample, "prompt_ids": prompt, "completion_ids": row.ids,
                       "text": tokenizer.decode(row.ids), "logprobs": row.logprobs,
                       "finish_reason": "stop" if row.finished else "length"}, ensure_ascii=False,
                      allow_nan=False) + "\n"


def resume(out: Path, prompts: dict[str, list[int]], samples: int, run_fingerprint: dict) -> dict[tuple[str, int], str]:
    """The lines of an earlier run by (id, sample), a torn last one cut off. Raises BadInput for another run's file.

    ``run_fingerprint``: what identifies a run, the model and the settings of sampling.
    """
    kept: dict[tuple[str, int], str] = {}
    if not can_resume(out, run_fingerprint):
        return kept
    for number, line in complete_lines(out):
        text = line + "\n"
        try:
            row = json.loads(text)
            at = row["id"], row["sample"]
            known = prompts.get(at[0]) == row["prompt_ids"] and at[1] in range(samples)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise BadInput("is not a completion of these prompts; nothing is overwritten", out, number)
        kept[at] = text
    return kept
