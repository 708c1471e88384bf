"""The configuration: what is written is read back, what is wrong is named, later sources win over earlier ones."""

import argparse
import dataclasses
import math
import random
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from minifleming.run import config as configuration
from minifleming.run.config import describe, differences, load, to_toml
from minifleming.run.errors import BadInput, Parser
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


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_loads_and_is_written_back_unchanged(recipe, tmp_path):
    config = load(recipe)
    assert load(written(tmp_path, to_toml(config))) == config


@pytest.mark.parametrize("seed", range(30))
def test_what_is_written_is_read_back(seed, tmp_path):
    """Random values of every field within its bounds: tiny and huge numbers, text of any script, quotes, DEL."""
    rng, config = random.Random(seed), load(None)
    for name, hint, meta in FIELDS:
        section, key = name.split(".")
        low = 0 if meta["low"] is None else meta["low"]
        if hint is float:
            new = rng.choice([low, low + rng.random() * 0.2, math.nextafter(low, math.inf), meta["high"] or 1e22])
            new = float(min(max(new, low), meta["high"] if meta["high"] is not None else math.inf))
        elif hint is int:
            new = int(rng.choice([low, low + 1, meta["high"] or 10**12]))
        elif hint is bool:
            new = rng.random() < 0.5
        elif name in ("run.out", "data.graph", "model.base", "cold_start.traces_file"):
            new = "".join(rng.choice('a /\\"\'#=[]\n\t\x01\x7f\x85\u2028é中🩺') for _ in range(12))
        else:
            continue
        setattr(getattr(config, section), key, new)
    config.mining.failed_below, config.mining.mastered_above = 0.1, 0.9
    config.stage2.mastered_parts = 1
    config.rl.objective, config.rl.minibatches = rng.choice(["grpo", "cispo"]), 1
    assert load(written(tmp_path, to_toml(config))) == config


def test_sources_win_in_the_order_recipe_set_flag(tmp_path):
    path = written(tmp_path, "[run]\nseed = 1\nkeep_last = 4\n[data]\ngraph = 'g'\n")
    parser = Parser()
    configuration.add_arguments(parser)
    args = parser.parse_args(["--config", str(path), "--set", "run.seed=2", "--set", "run.keep_last=5", "--set",
                              "run.keep_last=6", "--device", "cpu", "--set", "run.device=cuda"])
    config = configuration.from_arguments(args, {"run.seed": 3, "data.graph": None})
    assert (config.run.seed, config.run.keep_last, config.data.graph, config.run.device) == (3, 6, "g", "cpu")


@pytest.mark.parametrize("text, wanted", [
    ("run.seed=7", 7), (" run.seed = 7 ", 7), ("run.seed=0x10", 16), ("rl.lr=1", 1.0), ("rl.lr=1e-6", 1e-6),
    ("cold_start.enabled=false", False), ("run.out=runs/a", "runs/a"), ('run.out="runs/a b"', "runs/a b"),
    ("run.out=a=b", "a=b"), ("run.out=", ""), ("data.hops=[2, 3]", [2, 3]), ("rl.betas=[0, 0.5]", [0.0, 0.5]),
    ("stage1.mix=['fig2']", ["fig2"]), ("run.out=#1", "#1"), ("run.out=🩺", "🩺"),
])
def test_an_override_is_a_toml_value_or_a_bare_text(text, wanted):
    name = text.split("=")[0].strip()
    found = value(load(None, [text]), name)
    assert found == wanted and type(found) is type(wanted)


GRAPHS = ["a b.tsv", 'q"uote.tsv', "back\\slash.tsv", "中文.tsv", "🩺.tsv", "del\x7f.tsv", "true", "3"]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_flag_that_is_a_path_is_taken_as_it_stands(graph):
    args = argparse.Namespace(config=None, overrides=[], device=None)
    assert configuration.from_arguments(args, {"data.graph": graph}).data.graph == graph
    assert configuration.from_arguments(args, {"data.graph": Path(graph)}).data.graph == graph


def test_path_lengths_are_a_list_on_the_command_line():
    args = argparse.Namespace(config=None, overrides=[], device=None)
    assert configuration.from_arguments(args, {"data.hops": "1,2, 4"}).data.hops == [1, 2, 4]


@pytest.mark.parametrize("wrong, near", [
    ("run.sede", "run.seed"), ("rl.learning_rate", None), ("rl.temprature", "rl.temperature"),
    ("model.lr", None), ("stage3.rounds", "stage2.rounds"), ("run", None), ("run.", None), ("", None),
    (".seed", "run.seed"), ("run.seed.x", "run.seed"), ("__class__.seed", "run.seed"), ("run.__class__", None),
])
def test_an_unknown_key_is_refused_and_the_nearest_valid_one_named(wrong, near):
    with pytest.raises(BadInput, match=f"unknown key '{wrong}'") as caught:
        load(None, [f"{wrong}=1"])
    if near:
        assert f"did you mean '{near}'?" in str(caught.value)
    named = str(caught.value).partition("did you mean '")[2].removesuffix("'?")
    assert named == "" or named in NAMES


def test_a_wrong_key_in_a_recipe_names_the_file(tmp_path):
    path = written(tmp_path, "[rl]\nlearn = 1\n")
    with pytest.raises(BadInput, match=f"^{path}: unknown key 'rl.learn'"):
        load(path)


@pytest.mark.parametrize("name, hint, meta", FIELDS, ids=NAMES)
def test_a_value_of_the_wrong_type_is_refused(name, hint, meta):
    """Every field against every type but its own; a whole number is a float too, a boolean is never a number."""
    samples = {"true": bool, "3": int, "0.3": float, "'text'": str, "[1]": list, "1979-05-27": None, "{a = 1}": dict}
    own = {list} if get_args(hint) else {hint, int} if hint is float else {hint}
    for text, kind in samples.items():
        if kind not in own:
            with pytest.raises(BadInput, match=f"^{name}: must be "):
                load(None, [f"{name}={text}"])
    if get_args(hint):
        with pytest.raises(BadInput, match=f"^{name}: must be "):
            load(None, [f"{name}=[[1]]"])


@pytest.mark.parametrize("name, hint, meta", [f for f in FIELDS if f[2]["low"] is not None or f[2]["high"] is not None],
                         ids=[n for n, _, m in FIELDS if m["low"] is not None or m["high"] is not None])
def test_bounds_hold_and_are_themselves_allowed(name, hint, meta):
    step = 1 if hint is int else 1e-6
    section, key = name.split(".")
    for bound, sign, words in ((meta["low"], -1, "at least"), (meta["high"], 1, "at most")):
        if bound is not None:
            many = get_args(hint) != ()
            with pytest.raises(BadInput, match=f"^{name}: must be {words}"):
                load(None, [f"{name}={[bound + sign * step] if many else bound + sign * step}"])
            config = Config()
            configuration._assign(config, name, [bound] if many else bound, None)
            assert getattr(getattr(config, section), key) == ([bound] if many else bound)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_refused(text):
    with pytest.raises(BadInput, match="^rl.lr: must be "):
        load(None, [f"rl.lr={text}"])


@pytest.mark.parametrize("overrides, reason", [
    (["run.seed"], "'run.seed' is not section.field=value"),
    ([""], "is not section.field=value"),
    (["data.hops=[]"], "data.hops: path lengths go from 1 to 6, not []"),
    (["data.hops=[0]"], "data.hops: path lengths go from 1 to 6, not [0]"),
    (["data.hops=[1,7]"], "not [1, 7]"),
    (["data.ood_hops=[9]"], "data.ood_hops"),
    (["data.ood_hops=[]"], "data.ood_hops"),
    (["data.train_file=a.jsonl"], "data.train_file and data.heldout_file: give both or neither"),
    (["stage1.mix=['fig2','easy']"], "stage1.mix: must be tiers, or fig2 alone"),
    (["data.hops=[1,2"], "data.hops: must be a list"),
    (["data.findings=[2]"], "data.findings"),
    (["data.findings=[3,2]"], "data.findings"),
    (["data.findings=[0,2]"], "data.findings"),
    (["data.findings=[1,2,3]"], "data.findings"),
    (["rl.objective=ppo"], "rl.objective: 'ppo' is not one of paper, dr_grpo"),
    (["rl.advantage=std"], "rl.advantage: 'std' is not one of centred"),
    (["rl.kl_estimator=k4"], "rl.kl_estimator: 'k4'"),
    (["rl.num_iterations=2"], "rl.objective: 'paper' has no ratio"),
    (["rl.minibatches=2"], "rl.objective: 'paper' has no ratio"),
    (["rl.clip_eps=[0.2,0.2]"], "rl.objective: 'paper' has no ratio"),
    (["rl.objective=grpo", "rl.clip_eps=[0.2]"], "rl.clip_eps: must be [low, high] with low up to 1, or empty"),
    (["rl.objective=grpo", "rl.minibatches=9", "rl.prompts_per_step=8"], "rl.minibatches: 9 do not fit"),
    (["rl.betas=[0.9]"], "rl.betas"),
    (["rl.betas=[0.9,1.0]"], "rl.betas"),
    (["stage2.sampling='all'"], "stage2.sampling: 'all' is not one of mined, uniform"),
    (["model.dtype=float16"], "model.dtype: 'float16'"),
    (["cold_start.max_grad_norm=0"], "cold_start.max_grad_norm: must be at least"),
    (["rl.max_grad_norm=0"], "rl.max_grad_norm: must be at least"),
    (["run.device=tpu"], "run.device: 'tpu'"),
    (["stage1.mix=[]"], "stage1.mix: must be tiers, or fig2 alone"),
    (["stage1.mix=['hard']"], "stage1.mix: 'hard'"),
    (["stage2.mastered_parts=0", "stage2.failed_parts=0"], "stage2.mastered_parts and stage2.failed_parts: one must be positive"),
    (["mining.failed_below=0.5", "mining.mastered_above=0.5"], "mining.failed_below: must be below mining.mastered_above"),
    (['run.out="a\\u0000b"'], "run.out: must be Unicode text without NUL"),
    (["run.out=\udcff"], "run.out: must be Unicode text without NUL"),
    (["run.seed=" + "9" * 5000], "run.seed: must be int"),
    (["data.hops=" + "[" * 5000], "data.hops: must be a list"),
], ids=range(37))
def test_conditions_between_fields_and_values_that_no_run_can_have(overrides, reason):
    with pytest.raises(BadInput) as caught:
        load(None, overrides)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, reason", [
    ("seed = 1\n", "'seed' must be a section"),
    ("[run\n", "not valid TOML"),
    ("[run]\nseed = \n", "not valid TOML"),
    ("[run]\nseed = 1\nseed = 2\n", "not valid TOML"),
    ("[[run]]\nseed = 1\n", "'run' must be a section"),
    ("[run.deep]\nseed = 1\n", "unknown key 'run.deep'"),
    ("[other]\nx = 1\n", "unknown key 'other.x'"),
    ("[data]\nhops = " + "[" * 5000, "not valid TOML"),
    ("[run]\nseed = " + "9" * 5000, "not valid TOML"),
], ids=range(9))
def test_a_broken_recipe_is_refused_with_its_name(tmp_path, text, reason):
    path = written(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


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
        assert f"  {name} = " in text and meta["help"] in text and meta["help"]
        assert not meta["paper"] or f"{meta['help']}  [{meta['paper']}]" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_difference_is_named_but_for_fields_that_change_no_result(name):
    first, second = load(None), load(None)
    section, key = name.split(".")
    setattr(getattr(second, section), key, "another value")
    free = section == "alarms" or name in ("run.out", "run.device", "run.checkpoint_every", "run.keep_last")
    assert differences(first, second) == ([] if free else [name]) and differences(first, first) == []


def test_toml_is_read_by_the_standard_library():
    parsed = tomllib.loads(to_toml(load(None)))
    assert {f"{s}.{k}" for s, values in parsed.items() for k in values} == set(NAMES)


@pytest.mark.parametrize("name", ["rl.top_k=5", "rl.top_p=0.9", "stage1.min_p=0.1"])
def test_T15_cuts_are_refused_in_training(name):
    with pytest.raises(BadInput, match="training samples from the whole distribution"):
        load(None, [name])
