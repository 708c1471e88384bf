"""Forwards to `minifleming.extras.tour`, so that `python -m minifleming.tour` keeps its name."""

from minifleming.extras.tour import main
from minifleming.run.errors import run_cli

if __name__ == "__main__":
    raise SystemExit(run_cli(main))
