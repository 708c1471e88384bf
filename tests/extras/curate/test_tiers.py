"""Tiers from verdicts, pass rates and structure, and how well they agree."""

import copy
import json
from fractions import Fraction
from itertools import product

import pytest
from bank import item

from minifleming.extras.curate.tiers import (
    agreement,
    by_pass_rate,
    kappa,
    majority,
    read_tiers,
    tiers_step,
)
from minifleming.rods.item import TIERS
from minifleming.run.errors import BadInput

E, M, D = TIERS


@pytest.mark.parametrize("tiers, tier", [([E, E, D], E), ([D, D, D], D), ([E, M, D], M), ([E, D], M), ([D], D),
                                         ([E, E, D, D], M), ([M, M, D], M)])
def test_majority_and_ties_in_the_middle(tiers, tier):
    assert majority(tiers) == tier and majority(tiers[::-1]) == tier


@pytest.mark.parametrize("rate, tier", [(1, E), (0.75, E), (0.7499, M), (0.2501, M), (0.25, D), (0, D)])
def test_pass_rates_at_the_edges(rate, tier):
    assert by_pass_rate(rate) == tier
    assert by_pass_rate(0.5, easy=0.5) == E and by_pass_rate(0.5, difficult=0.5) == D


def test_precedence_and_what_is_kept():
    items = [item("all", tier=D), item("rate", tier=D), item("structure", tier=D), item("none"), item("verdict")]
    verdicts, votes = {"all": E, "verdict": M}, {"all": list("AABBB"), "rate": list("AAAAB"), "structure": []}
    before = copy.deepcopy((items, verdicts, votes))
    kept, left = tiers_step(items, verdicts, votes)
    assert (items, verdicts, votes) == before and left == []
    assert [i.tier for i in kept] == [E, E, D, "", M]
    assert kept[0].provenance["tiers"] == {"votes": E, "pass rate": M, "structure": D}
    assert [i.provenance["tiers"] for i in kept[1:]] == [{"pass rate": E, "structure": D}, {"structure": D}, {},
                                                         {"votes": M}]
    assert [i.provenance["lineage"][-1]["by"] for i in kept] == ["votes", "pass rate", "structure", "", "votes"]
    assert list(kept[0].provenance["tiers"]) == ["votes", "pass rate", "structure"]


def test_a_second_pass_does_not_take_a_chosen_tier_for_structure():
    once, _ = tiers_step([item("a")], {"a": E}, {})
    twice, _ = tiers_step(once, {"a": D}, {})
    assert twice[0].provenance["tiers"] == {"votes": D} and twice[0].tier == D
    again, _ = tiers_step(once, {}, {})
    assert again[0].tier == E and again[0].provenance["tiers"] == {"votes": E}


def test_kappa_of_a_table_worked_by_hand():
    """20 of 25 alike and chance (15 x 10 + 10 x 15) / 625 = 0.48: (0.8 - 0.48) / (1 - 0.48) = 8 / 13."""
    a = [E] * 10 + [E] * 5 + [D] * 10
    b = [E] * 10 + [D] * 5 + [D] * 10
    assert kappa(a, b) == pytest.approx(8 / 13) and kappa(a, b) == kappa(b, a)
    # three tiers: 4 of 6 alike; chance (3 x 2 + 2 x 2 + 1 x 2) / 36 = 1/3; (2/3 - 1/3) / (2/3) = 1/2
    assert kappa([E, E, E, M, M, D], [E, E, M, M, D, D]) == 0.5
    assert kappa([E, D], [E, D]) == 1 and kappa([E, D], [D, E]) == -1
    assert kappa([], []) is None and kappa([E, E], [E, E]) is None and kappa([E, E], [E, D]) == 0


def test_kappa_against_the_definition_on_all_small_tables():
    for a, b in product(product(TIERS, repeat=3), repeat=2):
        observed = Fraction(sum(x == y for x, y in zip(a, b)), 3)
        chance = sum(Fraction(a.count(t), 3) * Fraction(b.count(t), 3) for t in TIERS)
        assert kappa(a, b) == (None if chance == 1 else pytest.approx(float((observed - chance) / (1 - chance))))


def test_agreement_counts_items_with_both():
    kept, _ = tiers_step([item("a", tier=E), item("b", tier=D), item("c")], {"a": E, "b": D, "c": M},
                         {"a": list("AAAA"), "c": list("BBBB")})
    assert agreement(kept) == [("votes", "pass rate", 2, pytest.approx(1 / 3)), ("votes", "structure", 2, 1.0),
                               ("pass rate", "structure", 1, None)]


@pytest.mark.parametrize("text, reason", [
    ("", "no tiers"), ('{"id": "a"}\n', "must be"), ('{"id": "a", "tiers": []}\n', "must be"),
    ('{"id": "a", "tiers": ["hard"]}\n', "must be"), ('{"id": 1, "tiers": ["easy"]}\n', "must be"),
    ('{"id": "a", "tiers": [["easy"]]}\n', "must be"), ('{"id": "a", "tiers": ["easy"]}\n' * 2, "twice"),
])
def test_bad_tier_files_are_refused(tmp_path, text, reason):
    path = tmp_path / "tiers.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=reason):
        read_tiers(path)


def test_tiers_are_read(tmp_path):
    path = tmp_path / "tiers.jsonl"
    path.write_text("".join(json.dumps({"id": n, "tiers": t}) + "\n" for n, t in [("a", [E, E, D]), ("b", [E, M, D])]))
    assert read_tiers(path) == {"a": E, "b": M}
