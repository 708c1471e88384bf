"""Supervised fine-tuning on reasoning traces (arXiv:2509.15279 §3.2).

    python train_sft.py --config recipes/tiny.toml --model tiny --traces traces.jsonl --out runs/sft

Beside the model folder stand its log (.metrics.jsonl), its configuration (.config.toml) and, while it runs, its
checkpoints (.checkpoints): the same command again goes on with a run that was killed.

Research software. Not for clinical use.
"""

import shutil
from pathlib import Path

from minifleming.cold_start import sft
from minifleming.cold_start.trace import read_traces
from minifleming.extras.plan import plan
from minifleming.lm.load import load_for_training
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import model_folder, write_model
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput, run_cli
from minifleming.run.journal import Journal


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("train_sft.py", __doc__)
    parser.add_argument("--model", help="tiny, or a model folder (default: model.base)")
    parser.add_argument("--traces", type=Path, help="the traces (JSONL)")
    parser.add_argument("--out", type=Path, help="the model folder to write; its log stands beside it")
    plan.add_arguments(parser)
    args = parser.parse_args(argv)
    plan.check_arguments(args)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.dry_run:
        print(plan.dry_run(cfg, args))
        return 0
    for name in ("traces", "out"):
        if getattr(args, name) is None:
            raise BadInput(f"--{name}: missing")
    if args.out.exists():
        raise BadInput("exists already; nothing is overwritten", args.out)
    device = distributed.pick_device(cfg.run.device)
    with distributed.process_group(device, cfg.run.dist_timeout_minutes, single_rank=cfg.run.fsdp_size != 1):
        train(cfg, args, device)
    return 0


def train(cfg: configuration.Config, args, device) -> None:
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    traces, held = sft.split_traces(read_traces(args.traces), cfg.cold_start.val_fraction, cfg.run.seed)
    if not traces:
        raise BadInput("every trace is held out, none is left to train on (cold_start.val_fraction)", args.traces)
    model = load_for_training(folder, cfg, device)
    examples, dropped = sft.examples_of(traces, tokenizer, cfg.cold_start.max_tokens)
    if not examples:
        raise BadInput(f"all {dropped} traces are longer than cold_start.max_tokens", args.traces)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.out.parent, prefix=f"{args.out.name}.")
    home, told = (args.out.with_name(f"{args.out.name}.{what}") for what in ("checkpoints", "config.toml"))
    if home.exists() and told.exists() and (drift := configuration.differences(configuration.load(told), cfg)):
        raise BadInput(f"the run was started with other values of {', '.join(drift)}; remove {home.name} to begin anew",
                       told)
    distributed.barrier()  # nobody writes before everybody has looked
    if distributed.rank() == 0:
        write_text(told, configuration.to_toml(cfg))
    sft.train(model, examples, cfg.cold_start, seed=cfg.run.seed, journal=journal,
              validation=sft.ValidationSet.of(held, tokenizer, cfg.cold_start), folder=home)
    write_model(model, tokenizer, args.out)
    if distributed.rank() == 0:
        shutil.rmtree(home, ignore_errors=True)
        print(f"{len(examples)} traces ({dropped} too long, {len(held)} held out), model in {args.out}")
    distributed.barrier()


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
