"""Forwards to `minifleming.rods.proof`: the command keeps its name."""

from minifleming.rods.proof import main
from minifleming.run.errors import run_cli

if __name__ == "__main__":
    raise SystemExit(run_cli(main))
