"""Forwards to `minifleming.extras.reports.training`: the command keeps its name."""

from minifleming.extras.reports.training import main
from minifleming.run.errors import run_cli

if __name__ == "__main__":
    raise SystemExit(run_cli(main))
