"""Forwards to `minifleming.extras.convert.gguf`: the command keeps its name."""

from minifleming.extras.convert.gguf import main
from minifleming.run.errors import run_cli

if __name__ == "__main__":
    raise SystemExit(run_cli(main))
