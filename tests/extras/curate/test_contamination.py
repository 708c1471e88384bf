"""Tests for contamination: planted copies, clean items, and the index against all pairs."""

import copy
import dataclasses
import math
import os
import random
from pathlib import Path

import pytest
from bank import bank, item
from planting import EDITS, plant

from minifleming.extras.curate.contamination import (
    Index,
    Text,
    Weights,
    contamination_step,
)
from minifleming.rods.item import LABELS
from minifleming.rods.readers import load_graph
from tests.rods.items import HELD_OUT, TRAIN, synthesize

DATA = os.environ.get("MINIFLEMING_DATA")
NATURAL = [
    ("Most common site of an ectopic pregnancy is", ("Ampulla", "Isthmus", "Fimbria", "Ovary")),
    ("Which nerve is hurt by a fracture of the surgical neck of the humerus?",
     ("Axillary", "Radial", "Ulnar", "Median")),
    ("A farmer of 60 coughs since spring. His sputum is rusty, his temperature is 39 degrees and a lobe sounds "
     "dull. He has kept geese for years. "
     "What grows in the culture?", ("Pneumococcus", "Legionella", "Chlamydia", "Aspergillus")),
    ("The drug of choice in absence seizures", ("Ethosuximide", "Phenytoin", "Gabapentin", "Carbamazepine")),
    ("男性，45岁，突发胸痛2小时，向左肩放射，伴大汗。心电图示胸前导联抬高。首选治疗是",
     ("溶栓治疗", "抗生素", "手术切除", "观察随访")),
    ("糖尿病患者最常见的死亡原因是", ("心血管疾病", "感染性休克", "酮症酸中毒", "肾功能衰竭")),
    ("Not a feature of nephrotic syndrome:", ("Haematuria", "Oedema", "Proteinuria", "Lipiduria")),
    ("A newborn of 12 hours turns blue when he drinks and pink when he cries. A catheter cannot be passed through "
     "the nose. "
     "Which step comes first? His mother is well.", ("Oral airway", "Antibiotics", "Surgery", "Echocardiography")),
]
BENCH = [item(f"n{i}", q, o) for i, (q, o) in enumerate(NATURAL)] + bank(120, 1)


@pytest.fixture(scope="module")
def index():
    return Index([("natural", BENCH[: len(NATURAL)]), ("bank", BENCH[len(NATURAL):])])


@pytest.fixture(scope="module")
def synthetic():
    """(a benchmark, items with other combinations of findings)"""
    graph = load_graph("embedded")
    held = synthesize(graph, 300, [1, 2, 3], seed=2, split=HELD_OUT)
    return held, synthesize(graph, 600, [1, 2, 3], seed=1, split=TRAIN)


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.__name__)
@pytest.mark.parametrize("twice", [False, True])
def test_every_edit_of_every_item_is_found(index, edit, twice):
    from numpy.random import default_rng
    rng = default_rng(5)
    copies = [dataclasses.replace(edit(i, rng), id=f"copy-{i.id}") for i in BENCH for _ in range(2)]
    copies = plant(copies, twice=True)[:: len(EDITS)] if twice else copies
    kept, left = contamination_step(copies, index)
    assert [(i.question, i.options) for i in kept] == [] and len(left) == len(copies)


def test_what_is_found_is_told(index):
    one = dataclasses.replace(BENCH[2], id="x", question=BENCH[2].question.replace("years", "ages"))
    [found] = contamination_step([one], index)[1]
    assert (found.step, found.reason, found.quarantined) == ("contamination", "in natural", False)
    assert found.evidence["benchmark"] == "natural" and found.evidence["id"] == "n2"
    assert found.evidence["rule"] == "covered" and found.evidence["covered"] >= 0.7
    assert found.evidence["words"].startswith("a farmer of 0 coughs")
    [same] = contamination_step([dataclasses.replace(BENCH[2], id="x")], index)[1]
    assert found.evidence["id"] == same.evidence["id"] and same.evidence["rule"] == "equal"
    assert same.evidence["options shared"] == 4 and same.evidence["same answer"]
    short = dataclasses.replace(BENCH[0], id="x", question=BENCH[0].question.replace(" is", ""))
    [short] = contamination_step([short], index)[1]
    assert (short.evidence["id"], short.evidence["rule"], short.evidence["options"]) == ("n0", "near", 1.0)


def test_a_long_vignette_is_found_under_other_options(index):
    other = dataclasses.replace(BENCH[2], options=dict(zip(LABELS, ("Virus", "Fungus"))), answer="A")
    assert contamination_step([other], index)[1][0].evidence["id"] == "n2"


def test_a_part_of_a_longer_text_is_found(index):
    longer = item("x", f"{BENCH[2].question} Before that he was well and worked on his farm every day without help. "
                       "Neighbours remember cheerful evenings, excellent cider, accordion music, wrestling matches, "
                       "pumpkin contests, steam engines, thunderstorms, lanterns, beehives and wagons full of timber.")
    assert contamination_step([longer], index)[1][0].evidence["rule"] == "covered"


QUESTION = "Which nerve passes through the foramen under the eye?"


@pytest.mark.parametrize("question, options, answer, found", [
    (QUESTION, ("A wholly other", "Made up one", "Invented", "Dreamt"), "A", True),  # ten words: under any options
    ("Site of an ectopic pregnancy:", ("Ampulla", "Spleen", "Liver", "Lung"), "A", True),  # short, the same answer
    ("Site of an ectopic pregnancy:", ("Spleen", "Isthmus", "Fimbria", "Lung"), "D", True),  # short, half the options
    ("Site of an ectopic pregnancy:", ("Spleen", "Isthmus", "Liver", "Lung"), "A", False),
    ("True about hepatitis:", ("All of the above", "None of the above", "It swims", "It sings"), "A", False),
])
def test_an_equal_question_under_other_options(question, options, answer, found):
    bench = [item("long", QUESTION, ("Infraorbital", "Mental", "Facial", "Lingual")),
             item("short", "Site of an ectopic pregnancy", ("Ampulla", "Isthmus", "Fimbria", "Ovary")),
             item("above", "True about hepatitis", ("All of the above", "None of the above", "A virus", "A liver"))]
    for others in (bank(40, 1), bank(400, 1)):
        left = contamination_step([item("x", question, options, answer)], Index([("b", [*bench, *others])]))[1]
        assert [d.evidence["rule"] for d in left] == ["equal"] * found


def test_a_question_that_many_items_ask_needs_an_option():
    stock = "Which one of the following statements about the body is true?"
    bench = [item(f"s{i}", stock, (f"{w} bones are hollow", f"{w} glands sleep")) for i, w in
             enumerate(("Red", "Blue", "Green", "White"))]
    own, copied = ("Teeth grow", "Nails bend"), ("Green bones are hollow", "Nails bend")
    index = Index([("b", [*bench, *bank(40, 1)])])
    assert contamination_step([item("x", stock, own)], index)[1] == []
    assert contamination_step([item("x", stock, copied)], index)[1][0].evidence["id"] == "s2"
    few = Index([("b", [*bench[:3], *bank(40, 1)])])
    assert contamination_step([item("x", stock, own)], few)[1][0].evidence["id"] == "s0"


@pytest.mark.parametrize("size", [20, 100, 3000])
def test_copies_are_found_in_a_small_benchmark_as_in_a_large_one(size):
    """The same vignette under other options and with a word less, whatever stands beside it."""
    others = bank(size - 1, 1)
    one = dataclasses.replace(BENCH[2], question=BENCH[2].question.replace("for years", "for long"),
                              options=dict(zip(LABELS, ("Virus", "Fungus"))), answer="A")
    index = Index([("b", [BENCH[2], *others])])
    assert [d.evidence["rule"] for d in contamination_step([one], index)[1]] == ["covered"]
    assert index.nats == pytest.approx(50 * math.log(size) / math.log(3170))


VALUES = ("A man of {} years breathes fast after a week of illness and is brought to the ward by his neighbour. "
          "Blood gas analysis: pH {}, carbon dioxide pressure {}, bicarbonate {}. Which disturbance is it?")
DISTURBANCES = ("Metabolic acidosis", "Respiratory alkalosis", "Metabolic alkalosis", "Respiratory acidosis")


def test_other_values_with_another_answer_wait_in_quarantine():
    index = Index([("b", [item("gas", VALUES.format(40, 7.2, 25, 10), DISTURBANCES, "A"), *bank(100, 1)])])
    [kept] = contamination_step([item("x", VALUES.format(40, 7.55, 20, 18), DISTURBANCES, "B")], index)[1]
    assert kept.quarantined and kept.reason == "in b, but for numbers and answer" and kept.evidence["id"] == "gas"
    for values, answer in (((40, 7.2, 25, 10), "B"), ((40, 7.55, 20, 18), "A"), ((41, 7.2, 25, 10), "A")):
        [found] = contamination_step([item("x", VALUES.format(*values), DISTURBANCES, answer)], index)[1]
        assert not found.quarantined and found.reason == "in b"
    excerpt = VALUES.format(40, 7.2, 25, 10).replace("A man of 40 years", "He")
    assert not contamination_step([item("x", excerpt, DISTURBANCES, "B")], index)[1][0].quarantined


def test_a_copy_outweighs_an_item_that_is_one_but_for_its_values():
    bench = [item("first", VALUES.format(40, 7.2, 25, 10), DISTURBANCES, "A"),
             item("second", VALUES.format(40, 7.55, 20, 18), DISTURBANCES, "B")]
    for order in (bench, bench[::-1]):
        for one in bench:
            [found] = contamination_step([dataclasses.replace(one, id="x")],
                                         Index([("b", [*order, *bank(100, 1)])]))[1]
            assert found.evidence["id"] == one.id and not found.quarantined


def test_one_sentence_of_a_long_vignette_is_no_copy(index):
    """Fifty nats of shared words, but a third of either text."""
    phrase = "purple octopus wearing sandals quietly devours marmalade beside frozen waterfalls near Lisbon"
    own = ("Yesterday our lighthouse keeper juggled seventeen porcelain teacups while {} whistling admirals discussed "
           "chess, glaciers, umbrellas, violins, cathedrals and volcanoes. Which wine do they order?").format
    bench = Index([("b", [item("b", f"{own('five')[::-1]} {phrase}", ("Port", "Cava")), *bank(200, 1)])])
    one = item("x", f"{own('six')} {phrase}", ("Merlot", "Rioja"))
    text = Text.of(one)
    assert bench.words.sum(set(phrase.lower().split())) > 55 and bench.candidates(text) != []
    assert contamination_step([one], bench)[1] == []


def test_a_word_of_a_very_short_question_may_differ_if_the_options_tell_enough():
    bench = [item("h", "Hapten is?", ("Antigenic and a protein", "Not antigenic alone", "A whole cell", "A lipid"))]
    index = Index([("b", [*bench, *bank(100, 1)])])
    [found] = contamination_step([dataclasses.replace(bench[0], question="Hatpen is?", id="x")], index)[1]
    assert found.evidence["rule"] == "retouched" and found.evidence["words changed"] == 1
    for question in ("Which of these is no hapten at all?", "Immunogen means what?"):
        assert contamination_step([dataclasses.replace(bench[0], question=question, id="x")], index)[1] == []
    flag = [item("f", "Is cocaine legal?", ("yes", "no")), *(item(f"f{i}", b.question, ("yes", "no"))
                                                            for i, b in enumerate(bank(60, 1)))]
    yes = Index([("b", flag)])
    assert contamination_step(flag[:1], yes)[1][0].evidence["id"] == "f"  # by its rare grams: nothing else leads to it
    assert contamination_step([item("x", "Is quinine legal?", ("yes", "no"))], yes)[1] == []


def test_similar_options_share_a_gram_of_their_prefixes():
    """Whatever reaches the least similarity of options that counts, unless each shared gram is common."""
    bench = [dataclasses.replace(one, options={k: f"{v} {chr(97 + i % 26) * 3}{chr(97 + i // 26) * 3}"
                                               for k, v in one.options.items()}) for i, one in enumerate(bank(100, 1))]
    index = Index([("b", bench)])
    texts, met = [Text.of(i) for i in [*plant(bench, 4), *bank(60, 2)]], 0
    for text in texts:
        prefix = set(index.prefix(text.options))
        for i, other in enumerate(index.texts):
            union = index.options.sum(text.options | other.options)
            alike = index.options.sum(text.options & other.options) / union
            rare = {g for g in text.options & other.options if index.options.counts[g] <= 10}
            first = sorted(text.options & other.options, key=lambda g: (index.options.counts[g], g))[:1]
            if alike >= 0.6 and rare and first[0] in rare:
                met += 1
                assert first[0] in prefix and i in index.by_option[first[0]]
    assert met >= 80


@pytest.mark.parametrize("question, options", [
    ("Which nerve is hurt by a fracture of the wrist?", ("Tibial", "Sural", "Ulnar", "Femoral")),
    ("Most common site of an ectopic kidney is", ("Pelvis", "Chest", "Neck", "Groin")),
    ("The drug of choice in pneumonia", ("Ethosuximide", "Amoxicillin", "Colchicine", "Warfarin")),
    ("糖尿病患者最常见的并发症是", ("视网膜病变", "骨折", "脱发", "耳鸣")),
    ("Which of the following is true?", ("Axillary", "Radial", "Ulnar", "Median")),
    ("Which of these four fishes lives deepest in the sea?", ("Cod", "Eel", "Ray", "Tuna")),
])
def test_what_only_resembles_stays(index, question, options):
    assert contamination_step([item("x", question, options)], index)[1] == []


def test_one_planted_copy_in_each_of_a_hundred_synthetic_items_and_few_alarms_without(synthetic):
    held, clean = synthetic
    index = Index([("held", held)])
    assert len(contamination_step(plant(held[:100], twice=True), index)[1]) == 100
    assert len(contamination_step(clean, index)[1]) <= 0.01 * len(clean)


def test_synthetic_items_are_clean_against_a_natural_benchmark_and_the_other_way_round(synthetic, index):
    assert contamination_step(synthetic[1], index)[1] == []
    assert contamination_step(BENCH, Index([("held", synthetic[0])]))[1] == []


def test_stock_phrases_are_no_evidence():
    """Items that share a long sentence with every item of the benchmark."""
    frame = "On physical examination there are no abnormalities and the vital signs are within normal limits today."
    bench = [dataclasses.replace(i, question=f"{i.question} {frame}") for i in bank(60, 3)]
    clean = [dataclasses.replace(i, question=f"{i.question} {frame}") for i in bank(60, 4)]
    assert len(contamination_step(clean, Index([("b", bench)]))[1]) <= 1


def test_a_gram_in_more_than_three_items_does_not_count():
    phrase = "the quick brown fox jumps over one lazy dog"
    bench = [item(f"b{i}", f"{phrase} {w} ?", (w, "other")) for i, w in enumerate(("alpha", "bravo", "delta", "gamma"))]
    run = ("the", "quick", "brown", "fox", "jumps", "over", "one", "lazy")
    assert run not in Index([("b", bench)]).by_run
    assert Index([("b", bench[:3])]).by_run[run] == [0, 1, 2]
    assert run not in Index([("b", bench[:2]), ("c", bench[2:])]).by_run  # counted over all benchmarks together


def test_the_index_compares_every_pair_that_may_be_a_copy():
    """The rules on all pairs find a match exactly where the index does, options that all share aside."""
    bench, items = bank(80, 1), [*bank(80, 2), *plant(bank(80, 1), 4, twice=True)]
    index = Index([("b", bench)])
    for one in items:
        text = Text.of(one)
        weights = index.words.sum(set(text.tokens)), index.questions.sum(text.question)
        every = [i for i in range(80) if index.equal(text, i) or index.covered(text, i, weights[0])
                 or index.near(text, i, weights[1])]
        every.sort(key=lambda i: text.other_values(index.texts[i]))  # stable: a certain one comes first
        found = index.match(one)
        assert (found[0]["id"] if found else None) == (bench[every[0]].id if every else None)


def test_order_and_company_change_nothing(index):
    items = [*bank(30, 9), *plant(BENCH[10:70], 2)]
    found = {d.item.id: d.evidence for d in contamination_step(items, index)[1]}
    assert len(found) == 60
    random.Random(1).shuffle(items)
    assert {d.item.id: d.evidence for d in contamination_step(items, index)[1]} == found
    assert {d.item.id for d in contamination_step(items[:25], index)[1]} == {i.id for i in items[:25]} & set(found)


def test_the_step_is_pure_keeps_all_items_and_is_idempotent(index):
    items = [*bank(30, 9), *plant(BENCH[10:40], 2)]
    before = copy.deepcopy(items)
    kept, left = contamination_step(items, index)
    assert items == before and [i.id for i in kept] + [d.item.id for d in left] == [i.id for i in items]
    assert contamination_step(kept, index)[1] == [] and kept[0].provenance["lineage"] == [{"step": "contamination"}]


def test_the_own_file_is_all_contaminated(index):
    assert contamination_step(BENCH, index)[0] == []


def test_a_benchmark_of_one_item_and_options_that_all_share():
    one = Index([("one", BENCH[:1])])
    assert len(contamination_step(BENCH[:1], one)[1]) == 1 and contamination_step(BENCH[1:9], one)[1] == []
    yes = [dataclasses.replace(i, options={"A": "yes", "B": "no"}, answer="A") for i in bank(60, 1)]
    kept, left = contamination_step([*yes, *(dataclasses.replace(i, options={"A": "yes", "B": "no"}, answer="A")
                                              for i in bank(60, 2))], Index([("yes", yes)]))
    assert len(left) >= 60 and {d.item.id for d in left} >= {i.id for i in yes} and len(left) <= 62


def test_a_weight_is_the_same_in_every_order():
    weights = Weights([frozenset(f"{i % n}" for n in range(1, 40)) for i in range(200)])
    names = [str(i) for i in range(60)]
    assert len({weights.sum(random.Random(seed).sample(names, 60)) for seed in range(50)}) == 1


def test_weights_are_nats_with_a_floor():
    weights = Weights([frozenset("ab"), frozenset("a")] + [frozenset("a")] * 38)
    assert weights["a"] == 0.1 and weights["b"] == pytest.approx(3.6888794541) and weights["z"] == weights["b"]
    assert Weights([frozenset("a")])["a"] == pytest.approx(2.9957322736)  # one of twenty, not one of one


@pytest.mark.skipif(not DATA, reason="needs MINIFLEMING_DATA")
def test_on_the_real_benchmarks():
    from minifleming.evaluation.benchmarks import read_set
    folder = Path(DATA) / "benchmarks"
    test, _ = read_set("medqa", folder / "medqa_test_4options.jsonl")
    mmlu, _ = read_set("mmlu", folder / "mmlu")
    clean, _ = read_set("medmcqa_from1", folder / "medmcqa_dev.jsonl")
    index = Index([("medqa", test), ("mmlu", mmlu)])
    assert len(contamination_step(clean, index)[1]) <= 0.01 * len(clean)
    for group in (test, mmlu):
        assert len(contamination_step(plant(group[::9][:100], twice=True), index)[1]) == 100
