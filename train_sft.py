"""Supervised fine-tuning on reasoning traces (arXiv:2509.15279 §3.2).

    python train_sft.py --config recipes/tiny.toml --model tiny --traces F --out runs/sft

Next to the model folder the command writes its log (.metrics.jsonl), its configuration
(.config.toml) and, while it runs, checkpoints (.checkpoints), from which the same command resumes
a killed run.

Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.cold_start import sft
from minifleming.cold_start.trace import read_traces
from minifleming.lm.weights import model_folder
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput, run_cli
from minifleming.run.run_folder import Journal, check_unchanged


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("train_sft.py", __doc__, plan=True)
    parser.add_argument("--model", help="tiny, or a model folder (default: model.base)")
    parser.add_argument("--traces", type=Path, help="the traces (JSONL)")
    parser.add_argument("--out", type=Path, help="the model folder to write")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.dry_run:
        from minifleming.extras.plan.plan import dry_run

        print(dry_run(cfg, args.ranks, args.gpu))
        return 0
    for name in ("traces", "out"):
        if getattr(args, name) is None:
            raise BadInput(f"--{name}: missing")
    if args.out.exists():
        raise BadInput("exists already; nothing is overwritten", args.out)
    device = distributed.pick_device(cfg.run.device)
    with distributed.process_group(device, cfg.run.dist_timeout_minutes, cfg.run.fsdp_size != 1):
        base = model_folder(cfg.model.base)
        traces = read_traces(args.traces)
        write_config(cfg, args.out)
        journal = Journal(args.out.parent, prefix=f"{args.out.name}.")
        counts = sft.fine_tune(base, traces, args.out, cfg, device, journal)
        if distributed.rank() == 0:
            print(", ".join(f"{count} {name}" for name, count in counts.items()), f"in {args.out}")
        distributed.barrier()
    return 0


def write_config(cfg: configuration.Config, out: Path) -> None:
    """Raises BadInput if checkpoints of a run with another configuration exist."""
    path = out.with_name(f"{out.name}.config.toml")
    checkpoints = sft.checkpoints_of(out)
    if checkpoints.exists() and path.exists():
        check_unchanged(path, cfg, f"remove {checkpoints.name} to begin anew")
    distributed.barrier()  # no rank writes before all have read
    if distributed.rank() == 0:
        write_text(path, configuration.to_toml(cfg))


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
