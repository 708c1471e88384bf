"""Audits a run folder, also a copy of it elsewhere.

    python -m minifleming.audit verify RUN            recompute all that follows from the log
    python -m minifleming.audit replay RUN --step 37  sample and train step 37 again, and compare

Exit status 0: everything is as logged. 1: a difference, or a log that was changed. 2: not a run
folder.
"""

from __future__ import annotations

from pathlib import Path

from minifleming.audit.reader import check_format
from minifleming.audit.replay import read_manifest, replay
from minifleming.audit.verify import verify
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="audit", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["verify", "replay"])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--step", type=int, help="replay: the optimizer step, from 1")
    args = parser.parse_args(argv)
    if not (args.run / "config.toml").is_file():
        raise BadInput("not a run folder: no config.toml", args.run)
    if args.what == "verify":
        run_verify(args.run)
    elif args.step is None or args.step < 1:
        raise BadInput("--step: give a step of the run, from 1")
    else:
        run_replay(args.run, args.step)
    return 0


def run_verify(folder: Path) -> None:
    findings = verify(folder)
    print(findings)
    differences = findings.differences
    for difference in differences[1:10]:
        print(f"  {difference}")
    if differences:
        raise RunFailed(f"{differences[0]} (the first of {len(differences)} differences)")


def run_replay(folder: Path, step: int) -> None:
    check_format(folder)
    cfg = configuration.load(folder / "config.toml")
    device = distributed.pick_device(read_manifest(folder)["device"])
    minutes, sharded = cfg.run.dist_timeout_minutes, cfg.run.fsdp_size != 1
    with distributed.process_group(device, minutes, single_rank=sharded):
        found = replay(folder, step)
        if distributed.rank() == 0:
            weights = found["weights_checksum"][:16] if found["exact"] else "not compared"
            print(f"step {step}, replayed from {found['from']} ({found['steps']} steps): "
                  f"equal ids, gradient norm {found['grad_norm']:.9g}, weights {weights}")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
