"""Tests for synthesize.py: exact counts, the same bytes from the same seed, and splits that share nothing."""

import re
from collections import Counter

import numpy as np
import pytest

import synth_kg
from minifleming.rods.item import Item, read_items, write_items
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import (
    Split,
    blind_accuracy,
    is_held_out,
    item_builder,
    option_set,
    tier_counts,
)
from minifleming.rods.triples import COLUMNS
from minifleming.rods.walk import EVIDENCE, Step, Walk
from minifleming.run.errors import BadInput, run_cli
from minifleming.run.fields import Data
from tests.rods.items import HELD_OUT, TRAIN, synthesize
from tests.rods.toy_graphs import build, clinic

GRAPH = load_graph("embedded")


def combination(item) -> tuple[str, frozenset[str]]:
    return item.provenance["root"], frozenset(t[2] for t in item.visible if t[1] in EVIDENCE)


@pytest.fixture(scope="module")
def splits():
    """As the pipeline makes them: different seeds, held out by combination, option sets of training taken."""
    train = synthesize(GRAPH, 500, [1, 2, 3], seed=0, split=TRAIN)
    taken = {option_set(item) for item in train}
    held = synthesize(GRAPH, 200, [1, 2, 3], seed=1, split=HELD_OUT, excluded=taken)
    longer = synthesize(GRAPH, 80, [4], seed=2, split=HELD_OUT, excluded=taken)
    return train, held, longer


def test_train_and_held_out_share_no_combination_of_root_and_findings(splits):
    train, *held = splits
    seen = {combination(item) for item in train}
    for split in held:
        assert not seen & {combination(item) for item in split}


def test_train_and_held_out_share_no_combination_for_any_seeds(splits):
    """The split is a property of the combination, so even the same seed on both sides gives disjoint sets."""
    train = {combination(i) for i in synthesize(GRAPH, 150, [1, 2], seed=9, split=TRAIN)}
    held = {combination(i) for i in synthesize(GRAPH, 150, [1, 2], seed=9, split=HELD_OUT)}
    assert not train & held
    assert not held & {combination(item) for item in splits[0]}


def test_train_and_held_out_share_no_option_set(splits):
    train, *held = splits
    taken = {frozenset(item.options.values()) for item in train}
    for split in held:
        assert not taken & {frozenset(item.options.values()) for item in split}


@pytest.fixture
def few_failed_draws(monkeypatch):
    """A small graph counts as used up after fewer draws, to save time."""
    monkeypatch.setattr("minifleming.rods.synthesize.MAX_FAILED_DRAWS", 400)


def test_excluded_option_sets_are_avoided(few_failed_draws):
    """On four diseases there is one set of four options: once taken, nothing is left."""
    [item] = synthesize(clinic(), 1, [2], seed=0, findings=(1, 4))
    assert synthesize(clinic(), 1, [2], seed=0, findings=(1, 4), excluded=[option_set(item)]) == []


def test_a_quarter_of_the_combinations_is_held_out_and_the_order_of_findings_does_not_matter():
    combos = [Walk("d", tuple(Step("d", "has_symptom", f"s{i}-{j}", True) for j in range(3)), ()) for i in range(2000)]
    held = [is_held_out(walk) for walk in combos]
    assert abs(sum(held) / 2000 - 0.25) < 0.05
    assert held == [is_held_out(Walk("d", walk.evidence[::-1], ())) for walk in combos]


def test_every_split_has_the_requested_number_of_items_with_unique_ids(splits):
    assert [len(split) for split in splits] == [500, 200, 80]
    for split in splits:
        assert len({item.id for item in split}) == len(split)


@pytest.mark.parametrize("count, hops", [(1, [3]), (7, [1, 2, 3]), (50, [1, 2, 3, 4]), (20, [4, 5])])
def test_path_lengths_come_equally_often(count, hops):
    found = Counter(item.hops for item in synthesize(GRAPH, count, hops, seed=4))
    assert sum(found.values()) == count and set(found) <= set(hops)
    assert max(found.values()) - min(found[length] for length in hops) <= 1


def test_no_item_comes_twice(splits):
    for split in splits:
        keys = [(item.question, frozenset(item.options.values())) for item in split]
        assert len(set(keys)) == len(keys)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_items(tmp_path / name, synthesize(GRAPH, 60, [1, 2, 3], seed=seed))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_the_command_gives_the_same_bytes_too_and_exactly_n(tmp_path, capsys):
    for name in ("a", "b"):
        argv = ["--n", "37", "--seed", "2", "--out", str(tmp_path / name), "--hops", "2,3", "--options", "5"]
        assert run_cli(synth_kg.main, argv) == 0
    lines = (tmp_path / "a").read_bytes().splitlines()
    assert len(lines) == 37 and (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "37 items, each with a proof" in capsys.readouterr().out


def test_a_graph_with_too_few_items_ends_with_status_1_the_count_and_no_file(tmp_path, capsys):
    graph, out = tmp_path / "g.tsv", tmp_path / "items.jsonl"
    toy = clinic()
    rows = [COLUMNS, *((h, toy.type_of(h), r, t, toy.type_of(t)) for h, r, t in toy.triples)]
    graph.write_text("\n".join("\t".join(row) for row in rows))
    argv = ["--graph", str(graph), "--n", "60", "--hops", "2", "--out", str(out), "--set", "data.findings=[1,1]"]
    assert run_cli(synth_kg.main, argv) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("minifleming: the graph gave ") and " different items of the 60 asked for; " in last
    assert re.search(r"; \d+ of 2 hops; more come with fewer --hops or --qualifiers", last)
    assert not out.exists()


def test_tier_counts_count():
    items = synthesize(GRAPH, 12, [1, 2, 3, 4], seed=0)
    counts = tier_counts(items)
    assert sum(counts.values()) == 12 and counts == {t: sum(i.tier == t for i in items) for t in sorted(counts)}


def assert_blind_near_chance(num_diseases: int, options: int, sizes: tuple[int, int]) -> None:
    """A rule that never reads the question stays near chance on held-out items."""
    settings = {"options": options, "num_diseases": num_diseases}
    train = synthesize(GRAPH, sizes[0], [1, 2, 3], seed=0, split=TRAIN, **settings)
    held = synthesize(GRAPH, sizes[1], [1, 2, 3], seed=1, split=HELD_OUT, **settings)
    assert abs(blind_accuracy(train, held) - 1 / options) < 0.05
    asked = {item.provenance["root"] for item in train}
    rivals = {rival for item in held for rival in item.provenance["rivals"].values() if rival}
    assert len(rivals - asked) < 0.1 * len(rivals), "a competing diagnosis may be asked about too"


def test_options_do_not_reveal_the_answer():
    assert_blind_near_chance(num_diseases=80, options=8, sizes=(600, 300))


@pytest.mark.slow
def test_options_of_many_items_do_not_reveal_the_answer():
    for num_diseases, options in ((80, 8), (0, 4)):
        assert_blind_near_chance(num_diseases, options, sizes=(1500, 600))


def test_the_blind_rule_by_hand():
    def item(name, options, answer):
        labelled = dict(zip("AB", options))
        return Item(name, "q ?", labelled, "AB"[options.index(answer)])

    train = [item("1", ["x", "y"], "x"), item("2", ["x", "z"], "x"), item("3", ["y", "z"], "y")]
    test = [item("4", ["x", "y"], "x"), item("5", ["y", "z"], "z"), item("6", ["new", "z"], "z")]
    assert blind_accuracy(train, test) == pytest.approx((1 + 0 + 0.5) / 3)


def test_the_command_makes_a_training_and_a_test_file_that_share_nothing(tmp_path):
    files = {}
    for split in ("train", "heldout"):
        path = tmp_path / f"{split}.jsonl"
        assert run_cli(synth_kg.main, ["--n", "200", "--split", split, "--out", str(path)]) == 0
        files[split] = read_items(path)
    assert not {combination(i) for i in files["train"]} & {combination(i) for i in files["heldout"]}
    assert not {i.id for i in files["train"]} & {i.id for i in files["heldout"]}


def two_ways():
    """Genes that interact in pairs, each edge there and back: either way is asked in the same words."""
    return build([triple for i in range(6) for triple in (
        (f"d{i}", "has_symptom", f"s{i}"), (f"d{i}", "has_symptom", f"s{(i + 1) % 6}"),
        (f"d{i}", "associated_gene", f"g{i}"), (f"g{i}", "interacts_with", f"g{i ^ 1}"))])


@pytest.mark.parametrize("graph, hops", [(two_ways(), 3), (clinic(), 2), (clinic(), 1)])
def test_a_used_up_graph_gives_every_item_once(graph, hops, tmp_path, few_failed_draws):
    items = synthesize(graph, 60, [hops], seed=0, findings=(1, 3), options=2)
    assert 4 < len(items) < 60
    assert len({(item.question, *item.options.values()) for item in items}) == len(items)
    keys = [(*combination(item), tuple(item.path[1:]), option_set(item)) for item in items]
    assert len(set(keys)) == len(keys), "the order of findings or options is no difference"
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl") == items


def test_different_chains_from_the_same_findings_are_different_items():
    """d1 leads to x1 by two relations: with the same options these are two questions."""
    triples = [(f"d{n}", relation, f"x{n}") for n in "1234" for relation in ("first_line_treatment", "worsened_by")]
    graph = build([*clinic().triples, *triples])
    items = synthesize(graph, 60, [2], seed=0, findings=(1, 1), options=4)
    assert {(item.provenance["root"], item.path[-1][1]) for item in items} >= {
        ("d4", "first_line_treatment"), ("d4", "worsened_by")}


def test_walks_and_items_follow_rarity_and_boost(few_failed_draws):
    triples = [*clinic().triples, ("d1", "has_prevalence", "rare disease")]
    for boost in (1.0, 50.0):
        items = synthesize(build(triples), 40, [1], seed=0, findings=(1, 3), options=2, rarity=0.0, rare_boost=boost)
        assert {item.rarity for item in items} <= {1.0, boost} and (boost in {item.rarity for item in items})
    items = synthesize(clinic(), 20, [1], seed=0, findings=(1, 3), options=2, rarity=1.0)
    assert {item.rarity for item in items} <= {0.2, round(1 / 6, 6)}  # three or four findings and a drug


def test_different_roots_are_different_combinations():
    """The same findings of another root may be held out where these are not."""
    evidence = tuple(Step("d", "has_symptom", f"s{i}", True) for i in range(3))
    assert {is_held_out(Walk(f"d{n}", evidence, ())) for n in range(60)} == {True, False}


def test_the_blind_rule_uses_the_share_and_not_the_count():
    """x was right two times of four, y once of one: y is chosen."""
    train = [Item(str(n), "q ?", {"A": "x", "B": f"o{n}"}, "AABB"[n]) for n in range(4)]
    train.append(Item("5", "q ?", {"A": "y", "B": "o5"}, "A"))
    assert blind_accuracy(train, [Item("6", "q ?", {"A": "x", "B": "y"}, "B")]) == 1


def test_a_used_up_length_ends_after_failed_draws_in_a_row_and_an_item_starts_the_count_again(monkeypatch):

    drawn = []

    class Seldom(Split):
        def contains(self, walk):
            drawn.append(walk)
            return len(drawn) % 15 == 0

    class Never(Split):
        def contains(self, walk):
            drawn.append(walk)
            return False

    monkeypatch.setattr("minifleming.rods.synthesize.MAX_FAILED_DRAWS", 50)
    assert len(synthesize(GRAPH, 60, [1], seed=0, split=Seldom())) == 60
    drawn.clear()
    assert synthesize(GRAPH, 100, [1], seed=0, split=Never()) == []
    assert 0 < len(drawn) <= 50


def test_each_field_of_the_configuration_reaches_the_builder():
    plain = {"exclude_variants": False}
    base = item_builder(Data(**plain), GRAPH)
    assert (base.num_options, base.findings) == (4, (2, 4))
    builder = item_builder(Data(options=5, findings=[1, 3], evidence=["no_such", "has_symptom"], **plain), GRAPH)
    assert (builder.num_options, builder.findings) == (5, (1, 3))
    assert builder.walker.evidence_relations == ["has_symptom"] != base.walker.evidence_relations
    for field, value in (("rarity", 0.25), ("rare_boost", 7.0), ("num_diseases", 9)):
        other = item_builder(Data(**plain, **{field: value}), GRAPH).walker
        assert not np.array_equal(other.root_probability, base.walker.root_probability)


def test_a_graph_without_evidence_is_refused():
    with pytest.raises(BadInput, match="data.evidence: the graph has none of has_symptom"):
        item_builder(Data(), build([("x1", "treats", "d1")]))
