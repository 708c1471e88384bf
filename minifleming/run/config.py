"""The configuration: every choice of a run as a named field with its meaning, paper symbol and default.

Where the paper fixes a value the field says so; where it is silent, the default is the literature's or
ours and `docs/decisions.md` gives the source. Recipes (`recipes/*.toml`) and ``--set section.field=value``
override the defaults; an unknown key is an error that names the nearest valid one.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import tomllib
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

from minifleming.run.errors import BadInput
from minifleming.run.fields import RL, Config


def load(path: str | Path | None, overrides: list[str] = ()) -> Config:
    """Read a recipe (TOML) over the defaults, then the ``section.field=value`` overrides over both."""
    config = Config()
    if path is not None:
        for section, values in _read_toml(Path(path)).items():
            if not isinstance(values, dict):
                raise BadInput(f"'{section}' must be a section, as in [{section}]", path)
            for key, value in values.items():
                _assign(config, f"{section}.{key}", value, path)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise BadInput(f"--set: '{override}' is not section.field=value")
        _assign(config, name.strip(), _parse(text.strip()), None)
    check(config)
    return config


def check(config: Config) -> None:
    """Conditions between fields."""
    for name in ("hops", "ood_hops"):
        hops = getattr(config.data, name)
        if not hops or not all(1 <= length <= 6 for length in hops):
            raise BadInput(f"data.{name}: path lengths go from 1 to 6, not {hops}")
    low, high = config.data.findings if len(config.data.findings) == 2 else (0, 0)
    if not 1 <= low <= high:
        raise BadInput("data.findings: must be [fewest, most] with 1 <= fewest <= most")
    if len(config.rl.betas) != 2 or not all(0 <= beta < 1 for beta in config.rl.betas):
        raise BadInput("rl.betas: must be two numbers in [0, 1)")
    check_objective(config.rl)
    for place, value, allowed in [
        ("stage2.sampling", config.stage2.sampling, ("mined", "uniform")),
        ("model.dtype", config.model.dtype, ("float32", "bfloat16")),
        ("run.device", config.run.device, ("auto", "cpu", "cuda")),
        ("data.style", config.data.style, ("plain", "varied", "vignette")),
        ("data.language", config.data.language, ("en", "zh")),
        ("rl.objective", config.rl.objective, ("paper", "dr_grpo", "grpo", "dapo", "gspo", "cispo")),
        ("rl.advantage", config.rl.advantage, ("", "mean_baseline", "group", "batch", "leave_one_out")),
        ("model.compute_dtype", config.model.compute_dtype, ("auto", "float32", "bfloat16")),
        ("rl.kl_estimator", config.rl.kl_estimator, ("k1", "k2", "k3")),
    ] + [("stage1.mix", tier, ("easy", "moderate", "difficult", "fig2")) for tier in config.stage1.mix]:
        if value not in allowed:
            raise BadInput(f"{place}: '{value}' is not one of {', '.join(filter(None, allowed))}")
    if not config.stage1.mix or "fig2" in config.stage1.mix and config.stage1.mix != ["fig2"]:
        raise BadInput("stage1.mix: must be tiers, or fig2 alone")
    if config.stage2.mastered_parts + config.stage2.failed_parts == 0:
        raise BadInput("stage2.mastered_parts and stage2.failed_parts: one must be positive")
    if bool(config.data.train_file) != bool(config.data.heldout_file):
        raise BadInput("data.train_file and data.heldout_file: give both or neither")
    if config.mining.failed_below >= config.mining.mastered_above:
        raise BadInput("mining.failed_below: must be below mining.mastered_above")


def check_objective(rl: RL) -> None:
    """What does not go together, with the reason."""
    if rl.objective == "paper" and (rl.clip_eps or rl.num_iterations * rl.minibatches > 1):
        raise BadInput("rl.objective: 'paper' has no ratio, so rl.clip_eps, rl.num_iterations and rl.minibatches must stay as they "
                       "are: off-policy steps would be biased; take grpo, dr_grpo, dapo, gspo or cispo")
    if len(rl.clip_eps) not in (0, 2) or rl.clip_eps and rl.clip_eps[0] > 1:
        raise BadInput("rl.clip_eps: must be [low, high] with low up to 1, or empty")
    if rl.minibatches > rl.prompts_per_step:
        raise BadInput(f"rl.minibatches: {rl.minibatches} do not fit into {rl.prompts_per_step} prompts")


def to_toml(config: Config) -> str:
    """The resolved configuration as TOML that ``load`` reads back unchanged."""
    lines = []
    for section in dataclasses.fields(config):
        lines.append(f"[{section.name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in vars(getattr(config, section.name)).items()] + [""]
    return "\n".join(lines)


def describe() -> str:
    """Every field with its default, meaning and paper symbol: the second half of ``--help``."""
    lines = ["fields of the configuration (--set section.field=value):"]
    for section in dataclasses.fields(Config):
        for item in dataclasses.fields(section.default_factory):
            value = getattr(section.default_factory(), item.name)
            paper = f"  [{item.metadata['paper']}]" if item.metadata["paper"] else ""
            lines.append(f"  {section.name}.{item.name} = {json.dumps(value)}\n      {item.metadata['help']}{paper}")
    return "\n".join(lines)


def _read_toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text", path) from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; so is an endless number
        raise BadInput(f"not valid TOML: {error}", path) from None


def _parse(text: str):
    """A value from the command line: a TOML value, or a bare string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _assign(config: Config, name: str, value, path) -> None:
    section, _, key = name.partition(".")
    if key in ("top_k", "top_p", "min_p"):
        raise BadInput(f"{name}: training samples from the whole distribution, whose log-probabilities Eq. 1 needs; "
                       "cuts are for generate.py", path)
    holder = getattr(config, section, None) if section in Config.__dataclass_fields__ else None
    if holder is None or key not in holder.__dataclass_fields__:
        raise BadInput(f"unknown key '{name}'{_nearest(name)}", path)
    hint = get_type_hints(type(holder))[key]
    meta = holder.__dataclass_fields__[key].metadata
    setattr(holder, key, _typed(name, value, hint, meta, path))


def _nearest(name: str) -> str:
    names = [f"{s.name}.{f.name}" for s in dataclasses.fields(Config) for f in dataclasses.fields(s.default_factory)]
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if not near:
        near = [n for n in names if n.split(".")[1] == name.split(".")[-1]][:1]
    return f"; did you mean '{near[0]}'?" if near else ""


def _typed(name: str, value, hint, meta, path):
    """``value`` as the field's type, within its bounds, or one clear line."""
    if get_args(hint):
        if not isinstance(value, list):
            raise BadInput(f"{name}: must be a list, not {json.dumps(value, default=str)}", path)
        return [_typed(name, item, get_args(hint)[0], meta, path) for item in value]
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not hint or isinstance(value, NoneType):
        raise BadInput(f"{name}: must be {hint.__name__}, not {json.dumps(value, default=str)}", path)
    if hint is str and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise BadInput(f"{name}: must be Unicode text without NUL", path)
    if hint is float and not math.isfinite(value):
        raise BadInput(f"{name}: must be finite", path)
    if meta["low"] is not None and value < meta["low"]:
        raise BadInput(f"{name}: must be at least {meta['low']}, not {value}", path)
    if meta["high"] is not None and value > meta["high"]:
        raise BadInput(f"{name}: must be at most {meta['high']}, not {value}", path)
    return value


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Docstrings as they stand, and options in their own column."""


def add_arguments(parser: argparse.ArgumentParser, recipe: Path | None = None) -> None:
    """The flags every script has: --config, --set, --device, --dry-run."""
    parser.add_argument("--config", type=Path, default=recipe, metavar="FILE",
                        help=f"a recipe (TOML); default: {recipe.name if recipe else 'the fields below'}")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides",
                        help="override one field; repeatable")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="default: run.device")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def from_arguments(args: argparse.Namespace, flags: dict[str, object] | None = None) -> Config:
    """The configuration of parsed arguments: recipe, then --set, then the script's own ``flags``."""
    flags = dict(flags or {}) | {"run.device": args.device}
    texts = {name: f"[{value}]" if name.endswith("hops") else _toml(value) for name, value in flags.items()
             if value is not None}
    extra = [f"{name}={text}" for name, text in texts.items()]
    return load(args.config, [*args.overrides, *extra])


def _toml(value) -> str:
    """JSON is TOML, but for DEL and for characters written as two surrogates."""
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def differences(first: Config, second: Config) -> list[str]:
    """Fields whose values differ, but for those that change no result."""
    free = {"run.out", "run.device", "run.checkpoint_every", "run.keep_last"}
    a, b = dataclasses.asdict(first), dataclasses.asdict(second)
    return [f"{s}.{k}" for s in a for k in a[s] if a[s][k] != b[s][k] and f"{s}.{k}" not in free and s != "alarms"]
