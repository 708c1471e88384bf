"""Tests for run/config.py: a written configuration is read back, every error names its field, later sources win."""

import argparse
import dataclasses
import json
import math
import random
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from minifleming.run import config as configuration
from minifleming.run.config import describe, differences, load, to_toml
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

ROOT = Path(__file__).parents[2]
FIELDS = [(f"{section.name}.{item.name}", get_type_hints(section.default_factory)[item.name], item.metadata)
          for section in dataclasses.fields(Config) for item in dataclasses.fields(section.default_factory)]
NAMES = [name for name, _, _ in FIELDS]


def value(config: Config, name: str):
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def written(tmp_path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(*overrides: str, path=None) -> str:
    """The message of the BadInput that ``load`` raises, or a note that it raised none."""
    try:
        load(path, list(overrides))
    except BadInput as error:
        return str(error)
    return "no error"


def test_the_defaults_are_valid_and_every_field_has_its_type():
    config = load(None)
    for name, hint, _ in FIELDS:
        found = value(config, name)
        kind = get_args(hint)[0] if get_args(hint) else hint
        assert all(type(v) is kind for v in (found if get_args(hint) else [found])), name


def test_two_configurations_share_no_list():
    first, second = load(None), load(None)
    first.data.hops.append(6)
    assert second.data.hops == load(None).data.hops != first.data.hops


def test_the_control_recipe_is_the_default_one_without_mining():
    mined, control = (load(ROOT / "recipes" / f"{name}.toml") for name in ("tiny", "tiny-control"))
    assert set(differences(mined, control)) == {"stage2.sampling", "stage2.rounds", "stage2.steps_per_round"}
    steps = [c.stage2.rounds * c.stage2.steps_per_round for c in (mined, control)]
    assert steps[0] == steps[1] and control.stage2.sampling == "uniform"


def test_every_recipe_loads_and_is_written_back_unchanged(tmp_path):
    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    assert len(recipes) >= 6
    for recipe in recipes:
        config = load(recipe)
        assert load(written(tmp_path, to_toml(config))) == config, recipe.name


def random_value(rng: random.Random, hint, meta):
    """A value within the bounds, preferably at one of them; None for lists."""
    low = 0 if meta["low"] is None else meta["low"]
    if meta["choices"] and hint is str:
        return rng.choice(meta["choices"])
    if hint is float:
        new = rng.choice([low, low + rng.random() * 0.2, math.nextafter(low, math.inf), meta["high"] or 1e22])
        return float(min(max(new, low), meta["high"] if meta["high"] is not None else math.inf))
    if hint is int:
        return int(rng.choice([low, low + 1, meta["high"] or 10**12]))
    if hint is bool:
        return rng.random() < 0.5
    if hint is str:
        return "".join(rng.choice('a /\\"\'#=[]\n\t\x01\x7f\x85\u2028é中🩺') for _ in range(12))
    return None


def test_a_random_configuration_is_read_back(tmp_path):
    """Random values of every field within its bounds: tiny and huge numbers, text of any script, quotes, DEL."""
    for seed in range(12):
        rng, config = random.Random(seed), load(None)
        for name, hint, meta in FIELDS:
            new = random_value(rng, hint, meta)
            if new is not None and name not in ("data.train_file", "data.heldout_file"):
                section, key = name.split(".")
                setattr(getattr(config, section), key, new)
        config.mining.failed_below, config.mining.mastered_above = 0.1, 0.9
        config.stage2.mastered_parts = 1
        config.rl.objective, config.rl.minibatches = rng.choice(["grpo", "cispo"]), 1
        assert load(written(tmp_path, to_toml(config))) == config, seed


def test_sources_win_in_the_order_recipe_set_flag(tmp_path):
    path = written(tmp_path, "[run]\nseed = 1\nkeep_last = 4\n[data]\ngraph = 'g'\n")
    args = configuration.parser("p", "").parse_args([
        "--config", str(path), "--set", "run.seed=2", "--set", "run.keep_last=5", "--set", "run.keep_last=6",
        "--device", "cpu", "--set", "run.device=cuda"])
    config = configuration.from_arguments(args, {"run.seed": 3, "data.graph": None})
    assert (config.run.seed, config.run.keep_last, config.data.graph, config.run.device) == (3, 6, "g", "cpu")


def test_an_override_is_a_toml_value_or_plain_text():
    cases = [("run.seed=7", 7), (" run.seed = 7 ", 7), ("run.seed=0x10", 16), ("rl.lr=1", 1.0), ("rl.lr=1e-6", 1e-6),
             ("cold_start.enabled=false", False), ("run.out=runs/a", "runs/a"), ('run.out="runs/a b"', "runs/a b"),
             ("run.out=a=b", "a=b"), ("run.out=", ""), ("data.hops=[2, 3]", [2, 3]), ("rl.betas=[0, 0.5]", [0.0, 0.5]),
             ("stage1.mix=['fig2']", ["fig2"]), ("run.out=#1", "#1"), ("run.out=🩺", "🩺")]
    for text, wanted in cases:
        found = value(load(None, [text]), text.split("=")[0].strip())
        assert found == wanted and type(found) is type(wanted), text


def test_a_path_flag_is_taken_literally():
    args = argparse.Namespace(config=None, overrides=[], device=None)
    for graph in ("a b.tsv", 'q"uote.tsv', "back\\slash.tsv", "中文.tsv", "🩺.tsv", "del\x7f.tsv", "true", "3"):
        assert configuration.from_arguments(args, {"data.graph": graph}).data.graph == graph
        assert configuration.from_arguments(args, {"data.graph": Path(graph)}).data.graph == graph


def test_path_lengths_are_a_list_on_the_command_line():
    args = argparse.Namespace(config=None, overrides=[], device=None)
    assert configuration.from_arguments(args, {"data.hops": "1,2, 4"}).data.hops == [1, 2, 4]


def test_an_unknown_key_is_refused_and_the_nearest_valid_one_named():
    cases = {"run.sede": "run.seed", "rl.learning_rate": None, "rl.temprature": "rl.temperature", "model.lr": None,
             "stage3.rounds": "stage2.rounds", "run": None, "run.": None, "": None, ".seed": "run.seed",
             "run.seed.x": "run.seed", "__class__.seed": "run.seed", "run.__class__": None}
    for wrong, near in cases.items():
        message = error_of(f"{wrong}=1")
        assert f"unknown key '{wrong}'" in message
        assert near is None or f"did you mean '{near}'?" in message, message
        named = message.partition("did you mean '")[2].removesuffix("'?")
        assert named == "" or named in NAMES, message


def test_a_renamed_key_names_its_new_name():
    """Recipes of older versions get the new name where the names are similar."""
    for old, new in (("run.keep", "run.keep_last"), ("rl.clip", "rl.clip_eps")):
        assert f"did you mean '{new}'?" in error_of(f"{old}=1")


def test_a_wrong_key_in_a_recipe_names_the_file(tmp_path):
    path = written(tmp_path, "[rl]\nlearn = 1\n")
    assert error_of(path=path).startswith(f"{path}: unknown key 'rl.learn'")


def test_a_value_of_the_wrong_type_is_refused():
    """Every field against every type but its own; an integer is a float too, a boolean is never a number."""
    samples = {"true": bool, "3": int, "0.3": float, "'text'": str, "[1]": list, "1979-05-27": None, "{a = 1}": dict}
    failed = []
    for name, hint, _ in FIELDS:
        own = {list} if get_args(hint) else {hint, int} if hint is float else {hint}
        wrong = [text for text, kind in samples.items() if kind not in own] + ["[[1]]"] * bool(get_args(hint))
        for text in wrong:
            if not error_of(f"{name}={text}").startswith(f"{name}: must be "):
                failed.append((name, text))
    assert not failed


def test_bounds_are_enforced_and_the_bound_itself_is_allowed():
    failed = []
    for name, hint, meta in FIELDS:
        step = 1 if hint in (int, list[int]) else 1e-6
        for bound, sign, words in ((meta["low"], -1, "at least"), (meta["high"], 1, "at most")):
            if bound is None:
                continue
            outside, inside = bound + sign * step, bound
            if get_args(hint):
                outside, inside = [outside], [inside]
            if not error_of(f"{name}={outside}").startswith(f"{name}: must be {words}"):
                failed.append((name, outside))
            config = Config()
            configuration.assign(config, name, inside)
            assert value(config, name) == inside
    assert not failed


def test_a_choice_outside_its_list_is_refused():
    for name, hint, meta in FIELDS:
        if meta["choices"]:
            wrong = "['other']" if get_args(hint) else "other"
            assert error_of(f"{name}={wrong}").startswith(f"{name}: 'other' is not one of "), name


def test_a_number_that_is_not_finite_is_refused():
    for text in ("nan", "inf", "-inf", "1" + "0" * 400):
        assert error_of(f"rl.lr={text}").startswith("rl.lr: must be ")


def test_contradicting_fields_and_impossible_values_are_refused():
    cases = json.loads((ROOT / "tests" / "data" / "config_errors.json").read_text())
    cases += [{"overrides": ["run.seed=" + "9" * 5000], "reason": "run.seed: must be int"},
              {"overrides": ["data.hops=" + "[" * 5000], "reason": "data.hops: must be a list"}]
    failed = []
    for case in cases:
        message = error_of(*case["overrides"])
        if case["reason"] not in message or "\n" in message:
            failed.append((case, message))
    assert len(cases) >= 37 and not failed


def test_a_broken_recipe_is_refused_with_its_name(tmp_path):
    cases = [("seed = 1\n", "'seed' must be a section"), ("[run\n", "not valid TOML"),
             ("[run]\nseed = \n", "not valid TOML"), ("[run]\nseed = 1\nseed = 2\n", "not valid TOML"),
             ("[[run]]\nseed = 1\n", "'run' must be a section"), ("[run.deep]\nseed = 1\n", "unknown key 'run.deep'"),
             ("[other]\nx = 1\n", "unknown key 'other.x'"), ("[data]\nhops = " + "[" * 5000, "not valid TOML"),
             ("[run]\nseed = " + "9" * 5000, "not valid TOML")]
    for text, reason in cases:
        path = written(tmp_path, text)
        assert error_of(path=path).startswith(f"{path}: {reason}"), text[:40]


def test_a_recipe_that_is_no_text_or_no_file_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"[run]\nout = '\xe9'\n")
    for name, reason in [("latin.toml", "not UTF-8 text"), ("none.toml", "No such file"), (".", "directory")]:
        with pytest.raises(BadInput, match=reason):
            load(tmp_path / name)


def test_an_empty_recipe_is_the_default(tmp_path):
    assert load(written(tmp_path, "")) == load(written(tmp_path, "[run]\n")) == load(None)


def test_help_has_every_field_with_meaning_default_and_symbol():
    text = describe()
    for name, _, meta in FIELDS:
        after = text.partition(f"  {name} = ")[2].partition("\n  ")[2].splitlines()[0]
        assert meta["help"] and meta["help"] in after, name
        assert not meta["paper"] or f"[{meta['paper']}]" in after, name
        assert all(choice in after for choice in meta["choices"]), name


def test_a_difference_is_named_unless_its_field_changes_no_result():
    for name in NAMES:
        first, second = load(None), load(None)
        section, key = name.split(".")
        setattr(getattr(second, section), key, "another value")
        free = section == "alarms" or name in ("run.out", "run.device", "run.checkpoint_every", "run.keep_last")
        assert differences(first, second) == ([] if free else [name]) and differences(first, first) == []


def test_toml_is_read_by_the_standard_library():
    parsed = tomllib.loads(to_toml(load(None)))
    assert {f"{s}.{k}" for s, values in parsed.items() for k in values} == set(NAMES)


def test_T15_truncation_is_refused_in_training():
    for name in ("rl.top_k=5", "rl.top_p=0.9", "stage1.min_p=0.1"):
        assert "training samples from the whole distribution" in error_of(name)
