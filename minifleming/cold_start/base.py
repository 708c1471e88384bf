"""Forwards to `minifleming.extras.tiny_base.base`, so that the command keeps its name."""

from minifleming.extras.tiny_base.base import main
from minifleming.run.errors import run_cli

if __name__ == "__main__":
    raise SystemExit(run_cli(main))
