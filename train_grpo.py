"""The whole Fleming-R1 recipe (arXiv:2509.15279): items, cold start, two-stage GRPO, evaluation.

    torchrun --standalone train_grpo.py                 the embedded default, minutes on two cores
    torchrun --standalone train_grpo.py --config recipes/tiny-control.toml
    torchrun --standalone train_grpo.py --set run.seed=1 --set run.out=runs/tiny-1

Stages that the run folder already holds are reused; a killed run resumes where it stopped.
Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.recipe import Recipe
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.errors import run_cli
from minifleming.run.run_folder import start_checkpoint

RECIPE = Path(__file__).parent / "recipes" / "tiny.toml"


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("train_grpo.py", __doc__, RECIPE, plan=True)
    parser.add_argument("--resume", default="auto", metavar="auto|never|PATH",
                        help="resume the run folder (auto), require a new one (never), or start a "
                             "new one from another run's checkpoint")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args)
    if args.dry_run:
        from minifleming.extras.plan.plan import dry_run

        print(dry_run(cfg, args.ranks, args.gpu))
        return 0
    start = start_checkpoint(args.resume, cfg.run.out)
    device = distributed.pick_device(cfg.run.device)
    with distributed.process_group(device, cfg.run.dist_timeout_minutes, cfg.run.fsdp_size != 1):
        table = Recipe(cfg, start).run_all()
        if distributed.rank() == 0:
            print(f"\n{table}\n\nRun folder: {cfg.run.out}. "
                  "Research software, not for clinical use.")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
