"""Ask a model at the terminal, or answer a file of items.

    python generate.py --model runs/tiny/checkpoints/step_000000/model
    python generate.py --model DIR --items items.jsonl --out answers.jsonl

Research software. Not for clinical use.
"""

import json
from pathlib import Path

from minifleming.lm.sampler import sample
from minifleming.lm.tokenizer import Tokenizer, chat
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.answer import reasoning_of
from minifleming.rods.item import read_items
from minifleming.run import config as configuration
from minifleming.run import parallel
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput, Parser, guarded
from minifleming.run.progress import bar


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="generate.py", description=__doc__, allow_abbrev=False, epilog=configuration.describe(),
                    formatter_class=configuration.HelpFormatter)
    configuration.add_arguments(parser)
    parser.add_argument("--model", help="tiny, or a model folder (default: model.base)")
    parser.add_argument("--items", type=Path, help="answer these items (JSONL) instead of chatting")
    parser.add_argument("--out", type=Path, help="with --items: the JSONL file to write")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.temperature < 0:
        raise BadInput("--temperature: must not be negative")
    if args.max_new_tokens < 1:
        raise BadInput("--max-new-tokens: must be positive")
    if (args.items is None) != (args.out is None):
        raise BadInput("--items and --out: give both or neither")
    if args.out and args.out.exists():
        raise BadInput("exists already; nothing is overwritten", args.out)
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    items = read_items(args.items) if args.items else None
    model = load_model(folder, cfg.model.dtype, parallel.pick_device(cfg.run.device))
    settings = {"temperature": args.temperature, "max_new_tokens": args.max_new_tokens,
                "end_ids": tokenizer.end_ids, "seed": cfg.run.seed}
    return batch(model, tokenizer, items, args.out, settings) if items else talk(model, tokenizer, settings)


def batch(model, tokenizer: Tokenizer, items, out: Path, settings: dict) -> int:
    prompts = [tokenizer.encode(tokenizer.prompt(item.question, item.options)) for item in items]
    with bar(total=len(items), desc="generate") as progress:
        found = sample(model, prompts, [item.id for item in items], done=progress.update, **settings)
    lines = [json.dumps({"item": items[c.prompt].id, "prompt_ids": prompts[c.prompt], "completion_ids": c.ids,
                         "text": tokenizer.decode(c.ids), "logprobs": c.logprobs,
                         "finish_reason": "stop" if c.finished else "length"}, ensure_ascii=False) for c in found]
    write_text(out, "".join(line + "\n" for line in lines))
    print(f"{len(lines)} completions in {out}")
    return 0


def talk(model, tokenizer: Tokenizer, settings: dict) -> int:
    """Read a line, answer it; an empty line or the end of input ends."""
    print("Research software, not for clinical use. An empty line ends.")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return 0
        if not line:
            return 0
        prompt = tokenizer.encode(chat(tokenizer.instruction, line.replace("\\n", "\n")))
        text = tokenizer.decode(sample(model, [prompt], [line], **settings)[0].ids)
        print(f"  reasoning:{reasoning_of(text)}\n  {text.rpartition('</think>')[2]}")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
