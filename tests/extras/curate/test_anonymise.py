"""Tests for anonymisation: identifiers are replaced, medical numbers are kept."""

import copy
import dataclasses
import json
import time
from pathlib import Path

import pytest
from bank import bank, item

from minifleming.extras.curate.anonymise import anonymise, anonymise_step, replace

CASES = json.loads((Path(__file__).parents[2] / "data" / "anonymise.json").read_text("utf-8"))


def test_identifiers_are_replaced_and_counted():
    wrong = []
    for text, new, kinds in CASES["replaced"]:
        if replace(text) != (new, kinds) or replace(new) != (new, {}):
            wrong.append((text, replace(text)))
    assert not wrong


def test_medical_numbers_are_kept():
    wrong = []
    for text in CASES["kept"]:
        for sentence in (text, f"A case with {text}, and more."):
            if replace(sentence) != (sentence, {}):
                wrong.append((sentence, replace(sentence)))
    assert not wrong


def test_doses_pressures_and_ranges_are_kept():
    for value in range(1, 400, 7):
        for text in (f"{value} mg", f"{value}/{value // 2 + 1} mmHg", f"{value}-{value + 5}",
                     f"{value}.{value} mmol/L", f"{value}:{value}", f"1-{value}-{value}",
                     f"{value} x 10^9/L", f"K{value}.{value % 10}"):
            assert replace(text) == (text, {})


def test_only_ages_above_89_are_replaced():
    for age in range(1, 130):
        text = f"A {age}-year-old man, aged {age}, {age} years of age, {age}岁"
        assert replace(text)[0] == (text if age < 90 else text.replace(str(age), "90+"))


def test_a_date_with_day_month_and_year_is_replaced():
    for month in range(1, 13):
        for text in (f"seen 2019-{month:02}-28", f"seen {month}/28/2019", f"seen 28/{month}/2019",
                     f"2019年{month}月28日"):
            assert replace(text)[1] == {"DATE": 1}
        assert replace(f"{month}/2019") == (f"{month}/2019", {})


def test_options_keep_names_dates_and_ages_and_stay_different():
    dates = item(options=("March 5, 2019", "March 6, 2019", "Dr. Smith", "Mr. Jones"))
    assert anonymise(dates).options == dates.options
    people = item(options=("Dr. Smith", "a nurse of 95 years old", "seen March 5, 2019"))
    assert anonymise(people).options == people.options
    sites = anonymise(item(options=("https://a.org", "https://b.org")))
    assert sites.options == {"A": "https://a.org", "B": "https://b.org"}
    assert sites.provenance["lineage"][0]["replaced"] == {}
    mixed = anonymise(item(options=("ask j@x.org", "ask nobody")))
    assert mixed.options == {"A": "ask [EMAIL]", "B": "ask nobody"}
    assert mixed.provenance["lineage"][0]["replaced"] == {"EMAIL": 1}


def test_an_item_with_a_proof_is_unchanged():
    triples = [["flu", "has_symptom", "fever"]]
    proven = item(question="Dr. Smith has fever . Which disease ?", visible=triples)
    new = anonymise(proven)
    assert new.question == proven.question
    assert new.provenance["lineage"][0]["left"] == "proven by a graph"


def test_the_step_keeps_all_items_and_records_the_replacements():
    items = [*bank(20), item("x", "Mr. Smith, MRN 123456, Mr. Jones: what now?")]
    before = copy.deepcopy(items)
    kept, left = anonymise_step(items)
    assert items == before and left == []
    assert kept[-1].provenance["lineage"] == [{"step": "anonymise", "replaced": {"ID": 1, "NAME": 2}}]
    again, _ = anonymise_step(kept)
    assert [(i.question, i.options) for i in again] == [(i.question, i.options) for i in kept]
    assert all(dataclasses.replace(k, provenance={}) == i for k, i in zip(kept[:20], items))


@pytest.mark.slow
def test_the_time_is_linear():
    """Four times the text in far less than sixteen times the time."""
    def seconds(text):
        start = time.perf_counter()
        replace(text)
        return time.perf_counter() - start

    slow = []
    for unit in ("1-", "a@", "9", "a.", "+1 ", "Mr. A", "http://", "1/2/", "2019-", "(212) ", "王",
                 "x@y.", "Mr. Aa", "138-1234-", "MRN ", "MRN 1", "March 5 ", "phone 12 ", "A'A",
                 "call ", "Mr. and "):
        small = min(seconds(unit * 5_000) for _ in range(2))
        if seconds(unit * 20_000) >= 9 * small + 0.2:
            slow.append(unit)
    assert not slow
