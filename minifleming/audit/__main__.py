"""Audit a run folder, wherever it has been copied to.

    python -m minifleming.rlvr.audit verify RUN              recompute everything that follows from the log
    python -m minifleming.rlvr.audit replay RUN --step 37    restore, sample and train step 37 again, and compare

Exit status 0: all is as logged. 1: a difference, or a log that is not as it was written. 2: not a run folder.
"""

from __future__ import annotations

from pathlib import Path

from minifleming.audit.replay import read_manifest, replay
from minifleming.audit.verify import lines_of, verify
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
        findings = verify(args.run)
        for line in lines_of(findings):
            print(line)
        for difference in findings.differences[1:10]:
            print(f"  {difference}")
        if findings.differences:
            raise RunFailed(f"{findings.differences[0]} (the first of {len(findings.differences)} differences)")
        return 0
    if args.step is None or args.step < 1:
        raise BadInput("--step: give a step of the run, from 1")
    device, cfg = distributed.pick_device(read_manifest(args.run)["device"]), configuration.load(args.run / "config.toml")
    with distributed.process_group(device, cfg.run.dist_timeout_minutes, single_rank=cfg.run.fsdp_size != 1):
        found = replay(args.run, args.step)
        if distributed.rank() == 0:
            print(f"step {args.step}, replayed from {found['from']} ({found['steps']} steps): equal ids, gradient norm "
                  f"{found['grad_norm']:.9g}, weights {found['weights'][:16] if found['exact'] else 'not compared'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
