"""Load, check and write the configuration; the command-line arguments that every script shares.

Recipes (`recipes/*.toml`) and ``--set section.field=value`` override the defaults of fields.py. An
unknown key is an error that names the nearest valid one.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import re
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

from minifleming.run.checkpoint import read_text
from minifleming.run.errors import BadInput, Parser
from minifleming.run.fields import Config

# fields that change no result: a run may be resumed with other values
FREE = {"run.out", "run.device", "run.checkpoint_every", "run.keep_last"}


def load(path: str | Path | None, overrides: list[str] = ()) -> Config:
    """The defaults, overridden by a recipe (TOML), overridden by ``section.field=value`` texts."""
    config = Config()
    if path is not None:
        try:
            recipe = tomllib.loads(read_text(Path(path)))
        except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
            raise BadInput(f"not valid TOML: {error}", path) from None
        for section, values in recipe.items():
            if not isinstance(values, dict):
                raise BadInput(f"'{section}' must be a section, as in [{section}]", path)
            for key, value in values.items():
                assign(config, f"{section}.{key}", value, path)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise BadInput(f"--set: '{override}' is not section.field=value")
        assign(config, name.strip(), _parse(text.strip()))
    check(config)
    return config


def assign(config: Config, name: str, value, path: str | Path | None = None) -> None:
    """Set the field ``name`` (section.field). Raises BadInput for a wrong name or value."""
    section, _, key = name.partition(".")
    if key in ("top_k", "top_p", "min_p"):
        raise BadInput(f"{name}: training samples from the whole distribution, as Eq. 1 needs its "
                       "log-probabilities", path)
    holder = getattr(config, section) if section in Config.__dataclass_fields__ else None
    if holder is None or key not in holder.__dataclass_fields__:
        raise BadInput(f"unknown key '{name}'{_nearest(name)}", path)
    hint = get_type_hints(type(holder))[key]
    meta = holder.__dataclass_fields__[key].metadata
    try:
        setattr(holder, key, _convert(value, hint, meta))
    except ValueError as error:
        raise BadInput(f"{name}: {error}", path) from None


def _convert(value, hint, meta):
    """``value`` as the type of its field. Raises ValueError for a wrong type, bound or choice."""
    shown = json.dumps(value, default=str)
    if get_args(hint):
        if not isinstance(value, list):
            raise ValueError(f"must be a list, not {shown}")
        return [_convert(item, get_args(hint)[0], meta) for item in value]
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not hint:
        raise ValueError(f"must be {hint.__name__}, not {shown}")
    if hint is str and re.search("[\0\ud800-\udfff]", value):
        raise ValueError("must be Unicode text without NUL")
    if hint is float and not math.isfinite(value):
        raise ValueError("must be finite")
    if meta["low"] is not None and value < meta["low"]:
        raise ValueError(f"must be at least {meta['low']}, not {value}")
    if meta["high"] is not None and value > meta["high"]:
        raise ValueError(f"must be at most {meta['high']}, not {value}")
    if meta["choices"] and value not in meta["choices"]:
        raise ValueError(f"'{value}' is not one of {', '.join(filter(None, meta['choices']))}")
    return value


def check(config: Config) -> None:
    """Raises BadInput if fields contradict each other."""
    data, rl, mix = config.data, config.rl, config.stage1.mix
    off_policy = rl.clip_eps or rl.num_iterations > 1 or rl.minibatches > 1
    rules = [
        (data.hops and data.ood_hops, "data.hops and data.ood_hops: must not be empty"),
        (len(data.findings) == 2 and data.findings[0] <= data.findings[1],
         "data.findings: must be [fewest, most] with fewest <= most"),
        (bool(data.train_file) == bool(data.heldout_file),
         "data.train_file and data.heldout_file: give both or neither"),
        (len(rl.betas) == 2 and max(rl.betas) < 1, "rl.betas: must be two numbers in [0, 1)"),
        (rl.objective != "paper" or not off_policy,
         "rl.objective: 'paper' has no ratio, so off-policy steps would be biased: no "
         "rl.clip_eps, rl.num_iterations or rl.minibatches; take another objective"),
        (not rl.clip_eps or (len(rl.clip_eps) == 2 and rl.clip_eps[0] <= 1),
         "rl.clip_eps: must be [low, high] with low up to 1, or empty"),
        (rl.minibatches <= rl.prompts_per_step,
         f"rl.minibatches: {rl.minibatches} do not fit {rl.prompts_per_step} prompts"),
        (mix and ("fig2" not in mix or mix == ["fig2"]), "stage1.mix: must be tiers, or only fig2"),
        (config.stage2.mastered_parts + config.stage2.failed_parts > 0,
         "stage2.mastered_parts and stage2.failed_parts: one must be positive"),
        (config.mining.failed_below < config.mining.mastered_above,
         "mining.failed_below: must be below mining.mastered_above"),
    ]
    for holds, reason in rules:
        if not holds:
            raise BadInput(reason)


def to_toml(config: Config) -> str:
    """The configuration as TOML; ``load`` reads it back unchanged."""
    text = ""
    for section in dataclasses.fields(config):
        text += f"[{section.name}]\n"
        for key, value in vars(getattr(config, section.name)).items():
            text += f"{key} = {_toml(value)}\n"
        text += "\n"
    return text.removesuffix("\n")


def differences(first: Config, second: Config) -> list[str]:
    """Names of the fields whose values differ, without those that change no result."""
    found = []
    for (name, _, value), (_, _, other) in zip(_fields(first), _fields(second)):
        if value != other and name not in FREE and not name.startswith("alarms."):
            found.append(name)
    return found


def describe() -> str:
    """Every field with its default and meaning: the second half of ``--help``."""
    lines = ["fields of the configuration (--set section.field=value):"]
    for name, item, value in _fields(Config()):
        lines.append(f"  {name} = {json.dumps(value)}")
        meta = item.metadata
        choices = f" ({' | '.join(filter(None, meta['choices']))})" if meta["choices"] else ""
        paper = f"  [{meta['paper']}]" if meta["paper"] else ""
        lines.append(f"      {meta['help']}{choices}{paper}")
    return "\n".join(lines)


def _fields(config: Config):
    """Yield (section.field, dataclass field, value) of every field."""
    for section in dataclasses.fields(config):
        holder = getattr(config, section.name)
        for item in dataclasses.fields(holder):
            yield f"{section.name}.{item.name}", item, getattr(holder, item.name)


def _nearest(name: str) -> str:
    names = [known for known, _, _ in _fields(Config())]
    near = difflib.get_close_matches(name, names, 1, 0.4)
    return f"; did you mean '{near[0]}'?" if near else ""


def parser(prog: str, doc: str, recipe: Path | None = None, plan: bool = False) -> Parser:
    """A parser with the arguments that every script has: --config, --set, --device, --dry-run.

    ``plan``: also --ranks and --gpu, for the plan that --dry-run prints.
    """
    made = Parser(prog=prog, description=doc, allow_abbrev=False, epilog=describe(),
                  formatter_class=argparse.RawDescriptionHelpFormatter)
    default = recipe.name if recipe else "the fields below"
    made.add_argument("--config", type=Path, default=recipe, metavar="FILE",
                      help=f"a recipe (TOML); default: {default}")
    made.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE",
                      dest="overrides", help="override one field; repeatable")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], help="default: run.device")
    made.add_argument("--dry-run", action="store_true", help="print the configuration and stop")
    if plan:
        made.add_argument("--ranks", type=int, metavar="N", help="with --dry-run: plan for N ranks")
        made.add_argument("--gpu", help="with --dry-run: plan for this GPU (a100, h100, h200)")
    return made


def from_arguments(args: argparse.Namespace, flags: dict[str, object] | None = None) -> Config:
    """The configuration of parsed arguments: recipe, then --set, then then ``flags``."""
    for name in ("ranks", "gpu"):
        if getattr(args, name, None) is not None and not args.dry_run:
            raise BadInput(f"--{name}: only with --dry-run")
    overrides = list(args.overrides)
    for name, value in {**(flags or {}), "run.device": args.device}.items():
        if value is not None:
            text = f"[{value}]" if name.endswith("hops") else _toml(value)
            overrides.append(f"{name}={text}")
    return load(args.config, overrides)


def _parse(text: str):
    """The value of a TOML expression, or ``text`` itself if it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _toml(value) -> str:
    """JSON is TOML, except for DEL and for characters written as two surrogates."""
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
