"""Forwards to `minifleming.extras.teachers.__main__`: the command keeps its name."""

from minifleming.extras.teachers.__main__ import main
from minifleming.run.errors import run_cli

if __name__ == "__main__":
    raise SystemExit(run_cli(main))
