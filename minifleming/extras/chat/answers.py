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

from minifleming.extras.chat.styles import conversation
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import Completion, SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.item import read_items
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


def check(args) -> None:
    """Raise BadInput for flags of generate.py that contradict one another or are out of range."""
    if args.items and args.prompts:
        raise BadInput("--items and --prompts: give one of them")
    if (args.items or args.prompts) and not args.out:
        raise BadInput("--out: where shall the completions go?")
    for name in ("out", "raw") + (("samples",) if args.samples != 1 else ()):
        if getattr(args, name) and not (args.prompts or args.items and name != "raw"):
            raise BadInput(f"--{name}: only with {'--prompts' if name == 'raw' else '--items or --prompts'}")
    for name in ("history", "no_thinking", "system"):
        if getattr(args, name) and (args.items or args.prompts and (name == "history" or args.raw)):
            raise BadInput(f"--{name.replace('_', '-')}: not with "
                           f"{'--items' if args.items else '--raw' if args.raw else '--prompts'}")
    if 0 < args.temperature < 1e-3:
        raise BadInput("--temperature: 0 (greedy), or at least 0.001")
    for name, low in (("temperature", 0), ("max_new_tokens", 1), ("samples", 1)):
        value = getattr(args, name)
        if not low <= value < float("inf"):
            raise BadInput(f"--{name.replace('_', '-')}: {value} is out of range")


def read_prompts(args, tokenizer: Tokenizer) -> dict[str, list[int]] | None:
    """Ids by name: an item's own id, or the number of a line. None: nothing to read, so a chat."""
    if args.items:
        return {item.id: tokenizer.encode(tokenizer.prompt(item.question, item.options))
                for item in read_items(args.items)}
    if not args.prompts:
        return None
    try:
        lines = args.prompts.read_text(encoding="utf-8-sig").split("\n")  # numbered as an editor numbers them
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", args.prompts) from None
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text", args.prompts) from None
    texts = {str(i): text.rstrip("\r").replace("\\n", "\n") for i, text in enumerate(lines, 1) if text.strip()}
    if not texts:
        raise BadInput("no prompts", args.prompts)
    system = [("system", args.system)] if args.system else []

    def asked(text: str) -> str:
        return text if args.raw else conversation(tokenizer, [*system, ("user", text)], not args.no_thinking)

    return {name: tokenizer.encode(asked(text)) for name, text in texts.items()}


def prompts_that_fit(args, tokenizer: Tokenizer, positions: int) -> dict[str, list[int]] | None:
    """The prompts of ``read_prompts``. Raises BadInput for one that leaves no position for an answer."""
    prompts = read_prompts(args, tokenizer)
    for name, ids in (prompts or {}).items():
        if not 0 < len(ids) < positions:
            reason = f"prompt '{name}' has {len(ids)} tokens; the model has {positions} positions"
            raise BadInput(reason, args.items or args.prompts)
    return prompts
