"""Ask a model at the terminal, or answer a file of items or prompts.

    python generate.py --model runs/tiny/checkpoints/step_000000/model
    python generate.py --model DIR --items items.jsonl --out answers.jsonl
    python generate.py --model DIR --prompts questions.txt --samples 4 --temperature 1 --out answers.jsonl

A file is written as completions end; the same command goes on where an interrupted one was.

Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.lm.categorical import Truncation
from minifleming.lm.config import ModelConfig
from minifleming.lm.sampler import SamplingParams
from minifleming.lm.tensor_files import weight_files
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.item import read_items
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import sha256
from minifleming.run.errors import BadInput, run_cli
from minifleming.run.journal import bar


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("generate.py", __doc__)
    parser.add_argument("--model", help="tiny, or a model folder (default: model.base)")
    parser.add_argument("--items", type=Path, help="answer these items (JSONL) instead of chatting")
    parser.add_argument("--prompts", type=Path, help="answer this text file, one prompt a line; \\n is a line break")
    parser.add_argument("--raw", action="store_true",
                        help="with --prompts: no chat format and no token added, the text is continued as it is")
    parser.add_argument("--system", help="chat and --prompts: the system text (default: the instruction of the model's "
                        "training; empty: what its chat template has)")
    parser.add_argument("--out", type=Path, help="with --items or --prompts: the JSONL file to write")
    parser.add_argument("--samples", type=int, default=1, help="with --out: completions of each prompt")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, help="draw from the k most likely tokens; 0: all")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the most likely tokens with this mass")
    parser.add_argument("--min-p", type=float, default=0.0, help="leave out tokens below this share of the likeliest")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--history", action="store_true", help="chat: go on with the conversation, not line by line")
    parser.add_argument("--no-thinking", action="store_true",
                        help="chat and --prompts: open the answer with an empty reasoning")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    check(args)
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    args.system = tokenizer.instruction if args.system is None else args.system
    prompts = read_prompts(args, tokenizer)
    if prompts:
        fit(prompts, ModelConfig.read(folder / "config.json").max_position_embeddings, args.items or args.prompts)
    device = distributed.pick_device(cfg.run.device)
    model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic)
    params = SamplingParams(args.max_new_tokens, tokenizer.end_ids, samples=args.samples,
                            temperature=args.temperature, seed=cfg.run.seed, max_num_seqs=cfg.rl.max_num_seqs,
                            truncation=Truncation(args.top_k, args.top_p, args.min_p))
    from minifleming.extras.chat.answers import answer_all, resume
    from minifleming.extras.chat.terminal import talk

    if prompts is None:
        return talk(model, tokenizer, params, system=args.system, history=args.history,
                    thinking=not args.no_thinking)
    files = [folder / "config.json", *weight_files(folder)]
    run_fingerprint = {"model": {file.name: sha256(file) for file in files}, "dtype": cfg.model.dtype, "seed": cfg.run.seed,
                 "deterministic": cfg.run.deterministic, "end_ids": tokenizer.end_ids} | {
        name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "min_p", "max_new_tokens", "samples")}
    kept = resume(args.out, prompts, args.samples, run_fingerprint)
    with bar(total=len(prompts) * args.samples, desc="generate") as progress:
        count = answer_all(model, tokenizer, prompts, args.out, params, kept=kept,
                           done=progress.update)
    print(f"{count} completions in {args.out}")
    return 0


def check(args) -> None:
    """Flags that contradict one another, or lie outside of their range."""
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
    for name, low, high in (("temperature", 0, float("inf")), ("top_k", 0, float("inf")), ("top_p", 0, 1),
                            ("min_p", 0, 1), ("max_new_tokens", 1, float("inf")), ("samples", 1, float("inf"))):
        value = getattr(args, name)
        if not low <= value <= high or value == float("inf") or (name == "top_p" and value == 0):
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
    from minifleming.extras.chat.styles import conversation

    def asked(text: str) -> str:
        return text if args.raw else conversation(tokenizer, [*system, ("user", text)], not args.no_thinking)

    return {name: tokenizer.encode(asked(text)) for name, text in texts.items()}


def fit(prompts: dict[str, list[int]], positions: int, file: Path) -> None:
    """Raise BadInput for a prompt that leaves the model no position to answer in."""
    for name, ids in prompts.items():
        if not 0 < len(ids) < positions:
            raise BadInput(f"prompt '{name}' has {len(ids)} tokens; the model has {positions} positions", file)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
