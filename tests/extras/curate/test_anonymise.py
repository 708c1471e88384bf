"""Identifiers go, numbers of medicine stay."""

import copy
import dataclasses
import time

import pytest
from bank import bank, item

from minifleming.extras.curate.anonymise import anonymise, anonymise_step, replace

REPLACED = [
    ("Write to j.doe+x@mail.example.org today.", "Write to [EMAIL] today.", {"EMAIL": 1}),
    ("See https://example.org/a?b=1.", "See [URL].", {"URL": 1}),
    ("See www.example.org, please", "See [URL], please", {"URL": 1}),
    ("SSN 123-45-6789", "SSN [ID]", {"ID": 1}), ("number 123-45-6789 is his", "number [ID] is his", {"ID": 1}),
    ("MRN: 00123456, seen", "MRN: [ID], seen", {"ID": 1}),
    ("medical record number is A-778812", "medical record number is [ID]", {"ID": 1}),
    ("住院号：20190305123", "住院号：[ID]", {"ID": 1}), ("身份证11010519491231002X号", "身份证[ID]号", {"ID": 1}),
    ("证件 110105194912310021 在", "证件 [ID] 在", {"ID": 1}),
    ("call 212-555-0199 now", "call [PHONE] now", {"PHONE": 1}), ("(212) 555-0199", "[PHONE]", {"PHONE": 1}),
    ("1-800-555-0199", "[PHONE]", {"PHONE": 1}), ("+44 20 7946 0958", "[PHONE]", {"PHONE": 1}),
    ("+1 212 555 0199", "[PHONE]", {"PHONE": 1}), ("phone: 555-0199", "phone: 555-0199", {}),
    ("Tel 212 555 0199", "Tel [PHONE]", {"PHONE": 1}),
    ("手机13812345678。", "手机[PHONE]。", {"PHONE": 1}), ("电话：010-62345678", "电话：[PHONE]", {"PHONE": 1}),
    ("138-1234-5678", "[PHONE]", {"PHONE": 1}), ("+86 13812345678", "[PHONE]", {"PHONE": 1}),
    ("admitted on 2019-03-05 with", "admitted on [DATE] with", {"DATE": 1}),
    ("on 3/5/2019,", "on [DATE],", {"DATE": 1}),
    ("25/12/2018", "[DATE]", {"DATE": 1}), ("5.3.2019", "[DATE]", {"DATE": 1}),
    ("on March 5th, 2019 he", "on [DATE] he", {"DATE": 1}), ("5 Mar. 2019", "[DATE]", {"DATE": 1}),
    ("the 5th of March 2019", "the [DATE]", {"DATE": 1}), ("2019年3月5日入院", "[DATE]入院", {"DATE": 1}),
    ("DOB 3/4/56", "DOB [DATE]", {"DATE": 1}), ("born 03-04-1956", "born [DATE]", {"DATE": 1}),
    ("she was treated from March 5, 2019 on", "she was treated from [DATE] on", {"DATE": 1}),
    ("Mr. Smith and Dr. O'Brien-Jones met", "Mr. [NAME] and Dr. [NAME] met", {"NAME": 2}),
    ("Mrs John Smith presents", "Mrs [NAME] presents", {"NAME": 1}), ("Mr. A. is", "Mr. [NAME]. is", {"NAME": 1}),
    ("Dr. Smith's plan", "Dr. [NAME]'s plan", {"NAME": 1}), ("Mr. and Mrs. Smith", "Mr. and Mrs. [NAME]", {"NAME": 1}),
    ("Professor Smith sees her.", "Professor [NAME] sees her.", {"NAME": 1}),
    ("Dr. Smith described the risks. Which is the greatest?",
     "Dr. [NAME] described the risks. Which is the greatest?", {"NAME": 1}),
    ("Dr. Smith gave which drug to the patient?", "Dr. [NAME] gave which drug to the patient?", {"NAME": 1}),
    ("she was treated between July 1, 1992 and 31 December 1993, when patients were few",
     "she was treated between [DATE] and [DATE], when patients were few", {"DATE": 2}),
    ("between July 1, 1992 and December 31, 1993 he had patients",
     "between [DATE] and [DATE] he had patients", {"DATE": 2}),
    ("from 1/7/1992 to 2/7/1992 a man was observed", "from [DATE] to [DATE] a man was observed", {"DATE": 2}),
    ("stayed from March 5, 2019 until March 9, 2019. Discharged in good health",
     "stayed from [DATE] until [DATE]. Discharged in good health", {"DATE": 2}),
    ("Miss Jones has", "Miss [NAME] has", {"NAME": 1}), ("王某，男，45岁", "[NAME]，男，45岁", {"NAME": 1}),
    ("患者李某某", "患者[NAME]", {"NAME": 1}), ("张先生说", "[NAME]先生说", {"NAME": 1}),
    ("A 93-year-old woman", "A 90+-year-old woman", {"AGE": 1}), ("90 years old", "90+ years old", {"AGE": 1}),
    ("a 102 y/o man", "a 90+ y/o man", {"AGE": 1}), ("aged 91.", "aged 90+.", {"AGE": 1}),
    ("患者95岁", "患者90+岁", {"AGE": 1}),
]
MEDICINE = [
    "Na 140 mEq/L", "BP 120/80 mmHg", "1-800", "5-10-15 mg", "ICD code E11.9", "I25.10 and F32.1", "BRCA1 and TP53",
    "a ratio of 1:2:3",
    "46,XX,+21", "t(9;22)(q34;q11)", "500 mg twice daily", "10-20-30-40", "in 2019", "March 2019",
    "5 March", "3/5 strength", "10/10/10 score", "temperature 37.5-38.5",
    "200-300-400", "CAS 50-78-2", "LDL 100-129",
    "13800000000 copies/mL", "13800000000个",
    "platelets 150,000-450,000/mm3",
    "p = 0.0012345678",
    "T-score -2.5",
    "Ms is not MS: multiple sclerosis", "MR imaging", "Dr. is a title",
    "Mr. is one, too", "the dr said", "We Miss Cancers",
    "a 45-year-old", "aged 89",
    "89 years old", "a 95-day-old calf", "95% of 100 patients", "aged 90 to 95 weeks",
    "within 100 years",
    "HLA-B27", "CD4 count 350", "+2 +3 reflexes", "+2 20 40", "+1.25 -0.50 lens", "x@y", "user@host",
    "12.05.20",
    "1/2/3", "pH 7.35-7.45", "SpO2 98%", "grade 2/6",
    "90-120-150", "QT 400-440 ms", "10^12/L",
    "2+2+2",
    "between June 1, 2002 and September 1, 2009 we reviewed cases",
    "Between July 1, 1992 and December 31, 1993, patients were admitted to eight wards",
    "Between July 1, 1992 and December 31, 1993, patients with a stone",
    "patients admitted from 2001-01-02 to 2003-04-05", "infants born between 3 May 2001 and 4 June 2003 were weighed",
    "Dr Lind gave which of the following", "Dr. Lind first described which treatment", "Prof. Lind discovered what",
    "Professor Lind proposed which theory", "which of these was discovered by Dr Lind", "G2P1001", "12-lead",
    "0.9% 1000-2000-3000 ml",
    "高血压120/80", "这位先生",
    "某种药物", "体温38.5℃", "住院号不详", "5-HT3", "2019年", "王某种", "123-456-789", "B12",
    "patient number 12", "C8H10N4O2", "rs1234567890", "NCT01234567", "5,10,15", "1.2.3", "2020-21",
    "10-3-2", "1,000,000,000,000", "0.123-45-6789", "T1N0M0", "2 of 3", "1:1000",
]


@pytest.mark.parametrize("text, new, kinds", REPLACED)
def test_identifiers_are_replaced_and_counted(text, new, kinds):
    assert replace(text) == (new, kinds)
    assert replace(new) == (new, {})


@pytest.mark.parametrize("text", MEDICINE)
def test_numbers_of_medicine_stay(text):
    assert replace(text) == (text, {})
    assert replace(f"A case with {text}, and more.")[0] == f"A case with {text}, and more."


def test_every_dose_pressure_and_range_stays():
    for value in range(1, 400, 7):
        for text in (f"{value} mg", f"{value}/{value // 2 + 1} mmHg", f"{value}-{value + 5}", f"{value}.{value} mmol/L",
                     f"{value}:{value}", f"1-{value}-{value}", f"{value} x 10^9/L", f"K{value}.{value % 10}"):
            assert replace(text) == (text, {})


def test_ages_up_to_89_stay_and_those_above_do_not():
    for age in range(1, 130):
        text = f"A {age}-year-old man, aged {age}, {age} years of age, {age}岁"
        assert replace(text)[0] == (text if age < 90 else text.replace(str(age), "90+"))


def test_every_written_day_of_a_year_is_a_date():
    for month in range(1, 13):
        for text in (f"seen 2019-{month:02}-28", f"seen {month}/28/2019", f"seen 28/{month}/2019",
                     f"2019年{month}月28日"):
            assert replace(text)[1] == {"DATE": 1}
        assert replace(f"{month}/2019") == (f"{month}/2019", {})


def test_options_keep_what_may_be_the_answer():
    dates = item(options=("March 5, 2019", "March 6, 2019", "Dr. Smith", "Mr. Jones"))
    assert anonymise(dates).options == dates.options
    people = item(options=("Dr. Smith", "a nurse of 95 years old", "seen March 5, 2019"))
    assert anonymise(people).options == people.options
    sites = item(options=("https://a.org", "https://b.org"))
    assert anonymise(sites).options == sites.options and anonymise(sites).provenance["lineage"][0]["replaced"] == {}
    mixed = anonymise(item(options=("ask j@x.org", "ask nobody")))
    assert mixed.options == {"A": "ask [EMAIL]", "B": "ask nobody"}
    assert mixed.provenance["lineage"][0]["replaced"] == {"EMAIL": 1}


def test_an_item_with_a_proof_is_left_alone():
    proven = item(question="Dr. Smith has fever . Which disease ?", visible=[["flu", "has_symptom", "fever"]])
    new = anonymise(proven)
    assert new.question == proven.question and new.provenance["lineage"][0]["left"] == "proven by a graph"


def test_the_step_drops_nothing_changes_no_input_and_says_what_it_did():
    items = [*bank(20), item("x", "Mr. Smith, MRN 123456, Mr. Jones: what now?")]
    before = copy.deepcopy(items)
    kept, left = anonymise_step(items)
    assert items == before and left == [] and [i.id for i in kept] == [i.id for i in items]
    assert kept[-1].provenance["lineage"] == [{"step": "anonymise", "replaced": {"ID": 1, "NAME": 2}}]
    again, _ = anonymise_step(kept)
    assert [(i.question, i.options) for i in again] == [(i.question, i.options) for i in kept]
    assert all(dataclasses.replace(k, provenance={}) == i for k, i in zip(kept[:20], items))


@pytest.mark.parametrize("unit", ["1-", "a@", "9", "a.", "+1 ", "Mr. A", "http://", "1/2/", "2019-",
                                  "(212) ", "王", "x@y.",
                                  "Mr. Aa",
                                  "138-1234-", "MRN ", "MRN 1", "March 5 ", "phone 12 ", "A'A", "call ",
                                  "Mr. and "])
def test_the_time_is_linear(unit):
    """Four times the text in far less than sixteen times the time."""
    def seconds(n):
        text = unit * n
        start = time.perf_counter()
        replace(text)
        return time.perf_counter() - start
    small = min(seconds(5_000) for _ in range(2))
    assert seconds(20_000) < 9 * small + 0.2
