"""Tests for builder.py: options, ids and Chinese items, and each field reaches the builder."""

from minifleming.extras.wording.builder import MixedBuilder, worded_builder
from minifleming.extras.wording.styles import Chinese, English, read_chinese_names
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import blind_accuracy
from minifleming.rods.walk import Walker
from minifleming.run.fields import Data
from tests.extras.wording.toy_walks import TREATED, rng, walk_of
from tests.extras.wording.worded import make_item, synthesize
from tests.rods.items import HELD_OUT, TRAIN
from tests.rods.toy_graphs import clinic, in_chinese

GRAPH = load_graph("embedded")


def test_options_with_equal_texts_make_no_item():
    names = {name: zh for name, zh in in_chinese(clinic()).items()}
    walk, walker = walk_of("s1 s2 s3", TREATED), Walker(clinic())
    assert make_item(walk, walker, 4, rng(), style=Chinese("plain", names))
    alike = Chinese("plain", names | {"x2": names["x3"]})
    assert make_item(walk, walker, 4, rng(), style=alike) is None
    assert make_item(walk, walker, 4, rng(),
                     style=Chinese("plain", {n: z for n, z in names.items() if n != "x1"})) is None
    assert make_item(walk, walker, 4, rng(),
                     style=Chinese("plain", {n: z for n, z in names.items() if n != "x2"})) is None
    for both in (False, True):
        item = make_item(walk, walker, 3, rng(), two_targets=both, style=Chinese(
            "plain", {n: z for n, z in names.items() if n not in ("x2", "d2")}))
        assert item and "x2" not in {name for pair in item.provenance["nodes"].values() for name in pair}


def test_ids_differ_with_the_question_and_with_the_options():
    walk, walker = walk_of("s1 s2 s3", TREATED), Walker(clinic())
    items = [make_item(walk, walker, 3, rng(seed), style=English("varied")) for seed in range(60)]
    asked = {(item.question, *item.options.values()) for item in items}
    assert len({item.id for item in items}) == len(asked) > len({item.question for item in items}) > 1
    assert len(asked) > len({tuple(item.options.values()) for item in items})


def test_options_do_not_reveal_the_answer_in_chinese():
    """The deficit is counted by the names of the graph, in any language of the options."""
    style = Chinese("varied", read_chinese_names("", GRAPH))
    train, held = (synthesize(GRAPH, n, [1, 2, 3], seed=seed, options=8, num_diseases=80, style=style, split=split)
                   for n, seed, split in ((1000, 0, TRAIN), (400, 1, HELD_OUT)))
    assert abs(blind_accuracy(train, held) - 1 / 8) < 0.05


def test_in_chinese_no_finding_contains_the_name_of_the_answer():
    """The name of s2 begins with that of x4: if x4 is the answer, s2 is not named."""
    names = {name: chr(0x4E00 + i) for i, name in enumerate(clinic().names)}
    for answer, allowed in (("\u836f", False), ("\u5b83", True)):
        style = Chinese("plain", names | {"x4": answer, "s2": "\u836f\u75b9"})
        items = synthesize(clinic(), 40, [2], seed=0, findings=(1, 3), options=2, style=style)
        told = {t for item in items if item.masked == "x4" for _, _, t in item.evidence}
        assert "s5" in told and ("s2" in told) == allowed


def test_each_field_of_the_configuration_reaches_the_builder():
    base = worded_builder(Data(), GRAPH)
    assert base.exclude_variants and base.walker.implied and not base.walker.qualifiers and base.style.style == "plain"
    builder = worded_builder(Data(exclude_variants=False, qualifiers=True, style="varied"), GRAPH)
    assert not builder.exclude_variants and not builder.walker.implied and builder.walker.qualifiers
    assert builder.style.style == "varied"
    builder = worded_builder(Data(two_targets=0.5, options=5), GRAPH)
    assert isinstance(builder, MixedBuilder) and builder.share == 0.5
    assert builder.num_options == builder.two_target_builder.num_options == 5
    builder = worded_builder(Data(language="zh"), GRAPH)
    assert builder.language == "zh" and builder.style.surface_form("fever") == "\u53d1\u70ed"
