"""Tests for extraction: sentences, linked names, triples stated and triples denied."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.extract import labels, measure, predictions, rows
from minifleming.extras.extract import __main__ as command
from minifleming.extras.extract.clauses import link
from minifleming.extras.extract.lexicon import Lexicon
from minifleming.extras.extract.pages import Page, Sentence, blocks, read_pages, split
from minifleming.extras.extract.relations import Relator
from minifleming.rods.graph import Graph
from minifleming.rods.phrases import statement
from minifleming.rods.readers import load_graph
from minifleming.run.errors import run_cli

PAGES = Path(__file__).parent / "pages"
CASES = json.loads((Path(__file__).parents[2] / "data" / "extract.json").read_text(encoding="utf-8"))
GRAPH = load_graph("embedded")
RELATOR = Relator(GRAPH)
NAMES = RELATOR.names


def page(*sentences: str, title: str = "Gout", name: str = "p") -> Page:
    return Page(name, title, [Sentence(name, i, text) for i, text in enumerate(sentences, 1)])


def found(*sentences: str, title: str = "Gout") -> set:
    rows = RELATOR.extract([page(*sentences, title=title)])
    return {row.triple for row in rows}


def mentions(text: str) -> list[str]:
    linked = link(NAMES, page(text, title="Notes"))[0]
    return [text[m.start : m.end] for m in linked if not m.implied]


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return read_pages(PAGES)


@pytest.fixture(scope="module")
def dev(pages) -> list[Page]:
    return [p for p in pages if [p.name, "dev"] in rows(PAGES / "split.tsv")]


@pytest.fixture(scope="module")
def stating(dev) -> list[tuple[str, str]]:
    """(title, text) of the sentences from which a triple is extracted."""
    return sorted({(p.title, row.sentence.text)
                   for p in dev for row in RELATOR.extract([p])})


# ---- sentences

def test_sentences_are_split_where_they_end():
    wrong = [(text, split(text)) for text, count in CASES["sentence_counts"] if len(split(text)) != count]
    assert not wrong


def test_no_character_is_lost_between_sentences(dev):
    for p in dev:
        text = " ".join(s.text for s in p.sentences)
        assert " ".join(split(text)) == text


def test_bullets_and_wrapped_lines():
    text = ("One line\nwraps to needle-\nshaped here. Two.\n\nKey signs:\n- fever\n- rash,\n  wide\n"
            "- cough\n\nText\n\n- alone\n* other\n\nEnd")
    assert blocks(text) == ["One line wraps to needle-shaped here. Two.",
                            "Key signs: fever, rash, wide, cough", "Text", "alone", "other", "End"]


def test_every_labelled_page_has_the_sentences_of_its_labels(pages):
    by_name = {p.name: p for p in pages}
    for name, number, (head, _, _) in sorted(labels()):
        assert number <= len(by_name[name].sentences), (name, number)
        assert GRAPH.type_of(head)
    assert len(pages) == 16
    assert Counter(part for _, part in rows(PAGES / "split.tsv")) == {"dev": 8, "test": 8}


# ---- entities

def test_names_are_found_as_whole_words_longest_first():
    wrong = [(text, mentions(text)) for text, names in CASES["mentions"] if mentions(text) != names]
    assert not wrong


def test_matching_equals_a_search_of_all_windows():
    """Reference: all windows of words against a dictionary, longest first."""
    graph = Graph({"a": "T", "a b": "T", "b c d": "T", "d": "T"}, [("a", "r", "d")])
    names = Lexicon(graph)
    words = ["a", "b", "c", "d", "e"]
    for code in range(5**5):
        text = " ".join(words[code // 5**k % 5] for k in range(5))
        tokens, i, want = text.split(), 0, []
        while i < 5:
            window = next((n for n in (3, 2, 1) if " ".join(tokens[i : i + n]) in graph.node_id and i + n <= 5), 0)
            want += [" ".join(tokens[i : i + window])] if window else []
            i += window or 1
        assert [m.name for m in names.find(text)] == want


def test_an_abbreviation_is_local_to_the_page_that_defines_it():
    text = "SLE presents with fever."
    assert found("Systemic lupus erythematosus (SLE) is chronic.", text, title="Notes")
    assert not found(text, title="Notes") and not found("A slow event (SLE) came.", text, title="Notes")


def test_a_name_of_another_node_is_not_an_abbreviation():
    texts = ["Tuberin (HFE) and isoniazid (INH).", "And phenylalanine hydroxylase (PAH)."]
    assert NAMES.abbreviations(texts) == {
        "INH": "isoniazid", "PAH": "phenylalanine hydroxylase"}


def test_an_ambiguous_name_gives_no_mention():
    """"fungi" is the plural of a name and another name; "foci" is the plural of two names."""
    graph = Graph({"fungus": "Pathogen", "fungi": "Group", "focus": "Finding", "Focus": "Gene"},
                  [("fungus", "r", "focus")])
    names = Lexicon(graph)
    assert [m.name for m in names.find("Fungi and fungus, foci and focus.")] == ["fungi", "fungus"]


def test_words_that_refer_to_the_title():
    wrong = []
    for title, text, count in CASES["title_references"]:
        heads = [head for head, _, _ in found(text, title=title)]
        if sum(head in ("gout", "colchicine") for head in heads) != count:
            wrong.append((title, text, heads))
    assert not wrong


def test_it_does_not_refer_to_the_title_after_another_subject():
    assert found("Gout is old.", "It presents with fever.")
    assert not found("Leprosy is old.", "It presents with fever.")


# ---- relations

def test_lists_clause_turns_and_shared_subjects():
    wrong = []
    for text, pairs in CASES["clauses"]:
        if found(text) != {("gout", *pair) for pair in pairs}:
            wrong.append((text, found(text)))
    assert not wrong


def test_a_list_ends_where_a_new_clause_begins():
    assert found("Gout presents with fever, and rash is a sign of leprosy.") == {
        ("gout", "has_symptom", "fever"), ("leprosy", "has_symptom", "rash")}


def test_every_relation_is_found_in_the_words_of_phrases():
    examples = {relation: (head, relation, tail) for head, relation, tail in reversed(GRAPH.triples)}
    missing = [triple for triple in examples.values()
               if triple not in found(f"The {statement(*triple)}.", title="Notes")]
    assert not missing


def test_denied_asked_and_supposed_sentences_give_no_triple():
    wrong = [text for text in CASES["negated"] if any("gout" in triple for triple in found(text))]
    assert not wrong


def test_a_denying_frame_around_a_stating_sentence_gives_no_triple(stating):
    wrong = []
    for frame in CASES["denying_frames"]:
        for title, text in stating:
            if found(frame.format(text.rstrip(".")), title=title):
                wrong.append((frame, text))
    assert not wrong


def test_a_negated_verb_gives_no_triple(stating):
    """The first verb is negated, and the sentence cut before it turns to another one."""
    turn = re.compile(r";|,? but |, which|,? and (?=is|may|can|are|affects)|, and")
    for verb, negated in CASES["negated_verbs"]:
        seen = 0
        for title, text in stating:
            short = turn.split(text)[0].rstrip(".") + "."
            if re.search(verb, short) and found(short, title=title):
                seen += 1
                assert not found(re.sub(verb, negated, short), title=title), short
        assert seen, verb


# ---- properties of all pages

def test_both_names_are_in_the_sentence_or_the_title(pages):
    for p in pages:
        linked = link(NAMES, p)
        title = {mention.name for mention in NAMES.find(p.title)}
        for row in RELATOR.extract([p]):
            named = set(title)
            for mention in linked[row.sentence.number - 1]:
                named.update(() if mention.implied else [mention.name])
            assert {row.triple[0], row.triple[2]} <= named


def test_the_order_of_the_pages_has_no_effect_and_rows_are_unique(pages):
    first = command.table(RELATOR.extract(pages), NAMES.types)
    assert first == command.table(RELATOR.extract(pages[::-1]), NAMES.types)
    lines = first.splitlines()
    assert len(lines) == len(set(lines))


def test_a_page_gives_the_same_triples_with_and_without_the_others(pages):
    separate = []
    for p in pages:
        separate += RELATOR.extract([p])
    assert RELATOR.extract(pages) == separate


@pytest.mark.slow
@pytest.mark.parametrize("text", [
    "Gout presents with fever, rash and joint pain. ", "gout fever ", "a b (", "fever, ",
    "gout\n\n- fever\n", "not gout ", "it patients "])
def test_time_is_linear_in_the_length_of_a_page(tmp_path, text):
    """Eight times the text takes about eight times as long; quadratic would be 64 times."""
    def seconds(size: int) -> float:
        (tmp_path / "big.txt").write_text("Gout\n" + text * (size // len(text)))
        start = time.process_time()
        RELATOR.extract(read_pages(tmp_path))
        return time.process_time() - start

    assert seconds(1_000_000) < 20 * max(seconds(125_000), 0.05)


def test_precision_and_recall_on_the_labelled_pages():
    """Lower bounds; bench/extract.py prints the numbers."""
    predicted, labelled = predictions(), labels()
    for part, n in (("dev", 132), ("test", 139)):
        result = measure(part, predicted, labelled)
        assert result["precision"]["rate"] >= 0.97
        assert result["recall"]["rate"] >= 0.92
        assert result["recall"]["n"] == n


def test_order_and_length_of_a_list_have_no_effect():
    symptoms = ["fever", "rash", "joint pain", "nausea", "fatigue"]
    for frame in CASES["list_frames"]:
        for turn in range(5):
            for size in range(2, 6):
                names = (symptoms[turn:] + symptoms[:turn])[:size]
                for comma in ("", ","):
                    text = frame.format(", ".join(names[:-1]) + f"{comma} and {names[-1]}")
                    assert found(text) == {("gout", "has_symptom", name) for name in names}, text


def test_a_cue_and_the_types_suffice_for_a_treatment():
    """Any drug, any disease: the wording works for all names of the types, and for no others."""
    pairs = [("Gout", "gout", "colchicine"), ("Tuberculosis", "tuberculosis", "isoniazid"),
             ("Graves disease", "Graves disease", "methimazole")]
    for text in CASES["treatment_frames"]:
        for title, disease, drug in pairs:
            assert found(text.format(drug), title=title) == {(disease, "first_line_treatment", drug)}
        assert not any("treatment" in relation for _, relation, _ in found(text.format("fever")))
        assert found(text.format("colchicine"), title="Notes") == set()


def test_a_noun_for_another_name_is_not_the_title():
    triples = found("Gout is old.", "Colchicine helps.", "The drug causes nausea.")
    assert triples == {("gout", "first_line_treatment", "colchicine")}


def test_partners_of_a_name():
    optional = {("gout", "first_line_treatment", "colchicine")}
    for title, text, triples in CASES["partners"]:
        expected = set(map(tuple, triples))
        assert expected - optional <= found(text, title=title) <= expected, text


def test_a_negated_recommendation_is_a_contraindication():
    for text in CASES["contraindicated"]:
        assert found(text, title="Notes") == {("propranolol", "contraindicated_in", "asthma")}, text


def test_a_further_drug_is_another_treatment():
    for text, first, other in CASES["further_treatments"]:
        expected = {("gout", "first_line_treatment", drug) for drug in first}
        expected |= {("gout", "other_treatment", drug) for drug in other}
        assert found(text) == expected, text


def test_a_question_is_not_a_statement():
    assert not found("Is gout treated with colchicine?")
    assert found("Gout is treated with colchicine.")


# ---- the command

def run(folder: Path, *more: str) -> int:
    return run_cli(command.main, ["--pages", str(folder / "pages"), "--out", str(folder / "out.tsv"), *more])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pages").mkdir()
    text = "\ufeffGout\r\n\r\nIt presents\twith\u2028fever.\r\nGout causes rash.\r\n"
    (tmp_path / "pages" / "gout.txt").write_text(text)
    return tmp_path


def test_the_file_is_a_graph_with_provenance(folder, capsys):
    assert run(folder) == 0
    graph = load_graph(str(folder / "out.tsv"))
    assert graph.triples == [("gout", "has_symptom", "fever"), ("gout", "has_symptom", "rash")]
    assert (folder / "out.tsv").read_text().splitlines()[1].split("\t")[5:] == [
        "gout", "It presents with fever.", "pattern"]
    assert capsys.readouterr().out.startswith("2 rows, 2 triples, 1 pages")


def test_a_bad_page_is_refused(folder, capsys):
    for content, reason in ((b"Gout\nfine\nfi\xe8vre\n", "bad.txt: not UTF-8 text"),
                            (b"\nGout\n", "bad.txt:1: the first line must be the title"),
                            (b"", "bad.txt:1: the first line")):
        (folder / "pages" / "bad.txt").write_bytes(content)
        (folder / "out.tsv").write_text("precious")
        assert run(folder) == 2
        err = capsys.readouterr().err
        assert reason in err and err.count("\n") == 1
        assert (folder / "out.tsv").read_text() == "precious"


def test_a_page_name_with_white_space_does_not_break_the_table(folder):
    for name in ("a\tb.txt", "a\nb.txt"):
        (folder / "pages" / name).write_text("Gout\nIt presents with fever.\n")
    assert run(folder) == 0
    assert load_graph(str(folder / "out.tsv")).triples


def test_folders_without_pages_are_refused(tmp_path, capsys):
    assert run(tmp_path) == 2 and "no *.txt pages" in capsys.readouterr().err
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "readme.md").write_text("Gout\n")
    assert run(tmp_path) == 2 and "no *.txt pages" in capsys.readouterr().err
