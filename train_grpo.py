"""The whole Fleming-R1 recipe (arXiv:2509.15279): graph -> items -> cold start -> two-stage GRPO -> evaluation.

    torchrun --standalone train_grpo.py                                  the embedded default, minutes on two cores
    torchrun --standalone train_grpo.py --config recipes/tiny-control.toml
    torchrun --standalone train_grpo.py --set run.seed=1 --set run.out=runs/tiny-1

Stages that the run folder already holds are reused; a killed run goes on where it was.
Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.recipe import Run, checkpoint_argument
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.errors import BadInput, run_cli

RECIPE = Path(__file__).parent / "recipes" / "tiny.toml"


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("train_grpo.py", __doc__, RECIPE, plan=True)
    parser.add_argument("--resume", default="auto", metavar="auto|never|PATH",
                        help="go on with the run folder (auto), insist on an empty one (never), or, where the "
                             "run folder has no checkpoint yet, start from this one of another run")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args)
    if args.dry_run:
        from minifleming.extras.plan.plan import dry_run

        print(dry_run(cfg, args.ranks, args.gpu))
        return 0
    if args.resume == "never" and Path(cfg.run.out).exists():
        raise BadInput("the run folder exists and --resume is never", cfg.run.out)
    start = checkpoint_argument(args.resume)
    with distributed.process_group(distributed.pick_device(cfg.run.device), cfg.run.dist_timeout_minutes, single_rank=cfg.run.fsdp_size != 1):
        table = Run(cfg, start).everything()
        if distributed.rank() == 0:
            print(f"\n{table}\n\nRun folder: {cfg.run.out}. Research software, not for clinical use.")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
