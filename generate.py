"""Ask a model at the terminal, or answer a file of items or prompts.

    python generate.py --model runs/tiny/checkpoints/step_000000/model
    python generate.py --model DIR --items items.jsonl --out answers.jsonl
    python generate.py --model DIR --prompts questions.txt --samples 4 --temperature 1 --out F.jsonl

Completions are written as they end; the same command resumes an interrupted run.

Research software. Not for clinical use.
"""

from dataclasses import asdict, replace
from pathlib import Path

from minifleming.lm.config import ModelConfig
from minifleming.lm.sampler import SamplingParams
from minifleming.lm.tensor_files import weight_files
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import sha256
from minifleming.run.errors import run_cli
from minifleming.run.run_folder import bar


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("generate.py", __doc__)
    parser.add_argument("--model", help="tiny, or a model folder (default: model.base)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--items", type=Path, help="answer these items (JSONL); without: a chat")
    source.add_argument("--prompts", type=Path,
                        help="answer this text file, one prompt a line; \\n is a line break")
    parser.add_argument("--system", help="chat and --prompts: the system text (default: the "
                        "instruction of the training; empty: that of the chat template)")
    parser.add_argument("--out", type=Path, help="with --items or --prompts: the JSONL to write")
    parser.add_argument("--samples", type=int, default=1, help="with --out: completions per prompt")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--history", action="store_true", help="chat: continue the conversation")
    parser.add_argument("--no-thinking", action="store_true",
                        help="chat and --prompts: open the answer with an empty reasoning")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    from minifleming.extras.chat.answers import answer_all, check, read_prompts, resume
    from minifleming.extras.chat.terminal import talk

    check(args)
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    args.system = tokenizer.instruction if args.system is None else args.system
    positions = ModelConfig.read(folder / "config.json").max_position_embeddings
    chats = not (args.items or args.prompts)
    prompts = {} if chats else read_prompts(args, tokenizer, positions)
    device = distributed.pick_device(cfg.run.device)
    model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic)
    params = SamplingParams(args.max_new_tokens, tokenizer.end_ids, args.samples, args.temperature,
                            seed=cfg.run.seed, max_num_seqs=cfg.rl.max_num_seqs)
    if chats:
        return talk(model, tokenizer, params, system=args.system, history=args.history,
                    thinking=not args.no_thinking)
    files = [folder / "config.json", *weight_files(folder)]
    run_fingerprint = {"model": {file.name: sha256(file) for file in files},
                       "dtype": cfg.model.dtype, "deterministic": cfg.run.deterministic}
    run_fingerprint |= asdict(replace(params, max_num_seqs=1))  # may differ in a resumed run
    kept = resume(args.out, prompts, args.samples, run_fingerprint)
    with bar(total=len(prompts) * args.samples, desc="generate") as progress:
        lines = answer_all(model, tokenizer, prompts, args.out, params, kept, progress.update)
    print(f"{lines} completions in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
