"""What is extracted stands in the text, and what a text denies is not extracted."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.extract import labels, measure, predictions, rows
from minifleming.extras.extract import __main__ as command
from minifleming.extras.extract.clauses import assumed, link
from minifleming.extras.extract.cues import signatures
from minifleming.extras.extract.find import extract, prompt, prompted, table
from minifleming.extras.extract.lexicon import lexicon, read_synonyms
from minifleming.extras.extract.model_answers import AnswersRelator, read_answers
from minifleming.extras.extract.pages import Page, Sentence, blocks, read_pages, split
from minifleming.extras.extract.relations import PatternRelator
from minifleming.rods.graph import Graph
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput, run_cli

PAGES = Path(__file__).parent / "pages"
GRAPH = load_graph("embedded")
NAMES = lexicon(GRAPH)
DEV = [page for page in read_pages(PAGES) if [page.name, "dev"] in rows(PAGES / "split.tsv")]


def page(*sentences: str, title: str = "Gout", name: str = "p") -> Page:
    return Page(name, title, [Sentence(name, i, text) for i, text in enumerate(sentences, 1)])


def found(*sentences: str, title: str = "Gout") -> set:
    return {row.triple for row in extract([page(*sentences, title=title)], NAMES, [PatternRelator(GRAPH)])}


def mentions(text: str, title: str = "Notes") -> list[str]:
    return [text[m.start : m.end] for m in link(NAMES, page(text, title=title))[0] if m.end > m.start]


SENTENCES = sorted({(p.title, row.sentence.text) for p in DEV for row in extract([p], NAMES, [PatternRelator(GRAPH)])})


# ---- sentences

@pytest.mark.parametrize("text, count", [
    ("Dr. Koch gave 5.5 mg i.v. to a child, e.g. at night. It helped.", 2),
    ("The dose is approx. 5.0 mg/kg vs. 2.5 mg/kg. Mrs. K. Miller took it.", 2),
    ("It affects the skin (cf. Fig. 3) in all. Vitamin K. The rest is E. coli.", 3),
    ("CFTR is lost in CF. The lungs suffer. Is it rare? Yes! 20 of 30 died.", 5),
    ('He said "no." Then he left. (So did she.) The U.S. Navy came.', 4),
    ("no stop at all", 1), ("", 0), ("... !!! ???", 1),
])
def test_a_sentence_ends_where_a_reader_ends_it(text, count):
    assert len(split(text)) == count, split(text)


def test_no_character_is_lost_between_sentences():
    for p in DEV:
        text = " ".join(s.text for s in p.sentences)
        assert " ".join(split(text)) == text


def test_headings_bullets_and_wrapped_lines():
    text = ("# Signs #\nOne line\nwraps to needle-\nshaped here. Two.\n\nKey signs:\n- fever\n- rash,\n  wide\n"
            "- cough\n\nText\n\n- alone\n* other\n\non chromosome\n7. It is\n\n1. first\n2. second\n== Care ==\nEnd")
    assert blocks(text) == ["Signs", "One line wraps to needle-shaped here. Two.",
                            "Key signs: fever, rash, wide, cough", "Text", "alone", "other",
                            "on chromosome 7. It is", "first", "second", "Care", "End"]


def test_every_labelled_page_has_the_sentences_that_its_labels_count():
    pages = {p.name: p for p in read_pages(PAGES)}
    for name, number, (head, _, _) in sorted(labels()):
        assert number <= len(pages[name].sentences), (name, number)
        assert GRAPH.type_of(head)
    assert len(pages) == 16 and Counter(part for _, part in rows(PAGES / "split.tsv")) == {"dev": 8, "test": 8}


# ---- entities

@pytest.mark.parametrize("text, names", [
    ("Wilson's disease and WILSON DISEASE", ["Wilson's disease", "WILSON DISEASE"]),
    ("rash on palms and soles", ["rash on palms and soles"]),
    ("a rash on palms", ["rash"]),
    ("kidneys, lymph nodes and a seizure", ["kidneys", "lymph nodes", "seizure"]),
    ("HFE, not hfe; kit but KIT", ["HFE", "KIT"]),
    ("a gluten-free meal", []), ("a gluten-free diet", ["gluten-free diet"]),
    ("lung cancer and the lung", ["lung"]),
    ("Sj\u00f6gren syndrome; x", ["Sj\u00f6gren syndrome"]),
    ("Guillain\u2013Barr\u00e9 syndrome", ["Guillain\u2013Barr\u00e9 syndrome"]),
    ("diarrhoea with anaemia", ["diarrhoea", "anaemia"]),
    ("feverish goutweed", []),
    ("chest. Pain", []),
])
def test_names_are_found_as_whole_words_the_longest_first(text, names):
    assert mentions(text) == names


def test_matching_is_that_of_every_surface_tried_at_every_word():
    """A second way: all windows of words against a plain dictionary, longest first."""
    graph = Graph({"a": "T", "a b": "T", "b c d": "T", "d": "T"}, [("a", "r", "d")])
    names = lexicon(graph)
    words = ["a", "b", "c", "d", "e"]
    for code in range(5**5):
        text = " ".join(words[code // 5**k % 5] for k in range(5))
        tokens, i, want = text.split(), 0, []
        while i < 5:
            window = next((n for n in (3, 2, 1) if " ".join(tokens[i : i + n]) in graph.node_id and i + n <= 5), 0)
            want += [" ".join(tokens[i : i + window])] if window else []
            i += window or 1
        assert [m.names[0] for m in names.find(text)] == want


def test_an_abbreviation_holds_on_the_page_that_defines_it():
    text = "SLE presents with fever."
    assert found("Systemic lupus erythematosus (SLE) is chronic.", text, title="Notes")
    assert not found(text, title="Notes") and not found("A slow event (SLE) came.", text, title="Notes")


def test_a_surface_of_another_node_is_no_abbreviation():
    texts = ["Tuberin (HFE) and isoniazid (INH).", "MG (myasthenia gravis) and phenylalanine hydroxylase (PAH)."]
    assert NAMES.abbreviations(texts) == {
        "INH": ("isoniazid",), "MG": ("myasthenia gravis",), "PAH": ("phenylalanine hydroxylase",)}


def test_an_ambiguous_surface_is_resolved_by_types_or_skipped_and_counted(tmp_path):
    (tmp_path / "s.tsv").write_text("gout\tX1\nFBN1\tX1\nleprosy\tX2\ngout\tX2\n")
    names = lexicon(GRAPH, tmp_path / "s.tsv")
    relator = PatternRelator(GRAPH)
    got = extract([page("X1 encodes fibrillin-1.", "X1 presents with fever.", "X2 presents with rash.", title="N")],
                  names, [relator])
    assert [row.triple for row in got] == [("FBN1", "encodes", "fibrillin-1"), ("gout", "has_symptom", "fever")]
    assert relator.counts["ambiguous"] >= 1


@pytest.mark.parametrize("title, text, count", [
    ("Gout", "It presents with fever.", 1), ("Gout", "Patients have fever.", 1), ("Gout", "Symptoms include fever.", 1),
    ("Gout", "The disease causes fever.", 1), ("A history of gout", "It presents with fever.", 0),
    ("Something", "Symptoms include fever.", 0), ("Gout", "Patients with malaise have fever.", 0),
    ("Gout", "In leprosy symptoms include fever.", 0), ("Colchicine", "The drug may cause diarrhea.", 1),
    ("Gout", "Colchicine is old, and it presents with fever.", 0),
])
def test_words_that_stand_for_the_title(title, text, count):
    assert sum(head in ("gout", "colchicine") for head, _, _ in found(text, title=title)) == count


def test_it_does_not_mean_the_title_after_a_sentence_on_another_subject():
    assert found("Gout is old.", "It presents with fever.")
    assert not found("Leprosy is old.", "It presents with fever.")


# ---- relations

@pytest.mark.parametrize("text, triples", [
    ("Gout presents with fever, joint pain, and tophi.",
     {("has_symptom", t) for t in ("fever", "joint pain", "tophi")}),
    ("Fever and rash are symptoms of gout.", {("has_symptom", "fever"), ("has_symptom", "rash")}),
    ("Gout presents with fever but not rash.", {("has_symptom", "fever")}),
    ("Gout does not present with rash but with fever.", {("has_symptom", "fever")}),
    ("Gout presents with fever and is treated with colchicine.",
     {("has_symptom", "fever"), ("first_line_treatment", "colchicine")}),
    ("Gout is treated with colchicine and may cause fever.",
     {("has_symptom", "fever"), ("first_line_treatment", "colchicine")}),
    ("Gout is also treated with colchicine.", {("other_treatment", "colchicine")}),
    ("Gout, unlike leprosy, presents with fever.", {("has_symptom", "fever")}),
    ("Unlike leprosy, gout presents with fever.", {("has_symptom", "fever")}),
    ("Gout presents with absent tonsils and fever.", {("has_symptom", "absent tonsils"), ("has_symptom", "fever")}),
    ("Symptoms include fever, as in leprosy.", set()),
    ("Gout is in the book, and fever is in the sky.", set()),
])
def test_lists_turns_and_shared_subjects(text, triples):
    assert found(text) == {("gout", r, t) for r, t in triples}


def test_a_list_ends_where_a_new_clause_begins():
    assert found("Gout presents with fever, and rash is a sign of leprosy.") == {
        ("gout", "has_symptom", "fever"), ("leprosy", "has_symptom", "rash")}


@pytest.mark.parametrize("relation", sorted({r for _, r, _ in GRAPH.triples}))
def test_every_relation_of_the_graph_has_a_pattern(relation):
    """In the words of phrases.py, forward: what the house says it can read."""
    from minifleming.rods.phrases import statement
    head, _, tail = next(t for t in GRAPH.triples if t[1] == relation)
    assert (head, relation, tail) in found(f"The {statement(head, relation, tail)}.", title="Notes")


@pytest.mark.parametrize("text", [
    "Gout does not cause fever.", "Gout occurs without fever.", "There is no evidence that gout causes fever.",
    "Gout rarely causes fever.", "Gout is not treated with colchicine.", "Gout lacks fever.", "Does gout cause fever?",
    "If gout causes fever, call.", "Gout was once thought to cause fever.", "Gout would cause fever.",
    "Fever is absent in gout.", "Gout never presents with fever or rash.", "Unlike gout, leprosy is old.",
    "Fever points to leprosy rather than to gout.", "Fever argues against gout.",
    "It is unclear whether gout causes fever.",
    "Neither fever nor rash is a sign of gout.", "Gout cannot be treated with colchicine.",
    "No symptom of gout is fever.", "Gout doesn't present with fever.",
])
def test_denied_asked_and_supposed(text):
    assert not any("gout" in triple for triple in found(text))


FRAMES = ["It is not true that {}.", "There is no evidence that {}.", "It is false that {}.", "Is it true that {}?",
          "It is unknown whether {}.", "If {}, we are wrong.", "It was once believed that {}.",
          "Nobody would say that {}.", "{}: this has been refuted.", "{}, which is a myth.",
          "Whether {} is a matter of debate.",
          "It has been suggested that {}."]


@pytest.mark.parametrize("frame", FRAMES)
def test_no_triple_from_a_positive_sentence_in_a_denying_frame(frame):
    for title, text in SENTENCES:
        assert not found(frame.format(text.rstrip(".")), title=title), text


@pytest.mark.parametrize("verb, negated", [
    (r"\b(is|are) (?=caused|confirmed|treated|contraindicated|found|seen|common|also|used|known|typical|often)",
     r"\1 not "),
    (r"\bpresents? with", "does not present with"), (r"\b(?:include)\b", "do not include"),
    (r"\b(may|can) (?=cause|lead)", r"\1 not "), (r"\baffects\b", "does not affect"),
    (r"\bencodes\b", "does not encode"),
    (r"\bpoints to\b", "does not point to"), (r"\bis (an|a|the) ", r"is not \1 "),
    (r"\bare (the|a) ", r"are never \1 "),
    (r"\b(works|acts) (?=by|through|on)", r"never \1 "), (r"\bconfirms\b", "never confirms"),
])
def test_no_triple_from_the_negated_verb(verb, negated):
    """The first verb is negated, and the sentence cut before it turns to another one."""
    seen = 0
    for title, text in SENTENCES:
        short = re.split(r";|,? but |, which|,? and (?=is|may|can|are|affects)|, and", text)[0].rstrip(".") + "."
        if re.search(verb, short) and found(short, title=title):
            seen += 1
            assert not found(re.sub(verb, negated, short), title=title), short
    assert seen


# ---- laws

def test_both_names_stand_in_the_sentence_or_the_title():
    for p in read_pages(PAGES):
        for row, (head, _, tail) in ((r, r.triple) for r in extract([p], NAMES, [PatternRelator(GRAPH)])):
            entities = link(NAMES, p)[row.sentence.number - 1]
            there = {n for m in entities for n in m.names if m.end > m.start} | {n for m in NAMES.find(p.title)
                                                                                for n in m.names}
            assert {head, tail} <= there


def test_the_order_of_the_pages_changes_nothing_and_twice_is_the_same():
    pages = read_pages(PAGES)
    first = table(extract(pages, NAMES, [PatternRelator(GRAPH)]), NAMES.types)
    assert first == table(extract(pages[::-1], NAMES, [PatternRelator(GRAPH)]), NAMES.types)
    lines = first.splitlines()
    assert len(lines) == len(set(lines))


def test_a_page_read_alone_gives_what_it_gives_among_others():
    pages = read_pages(PAGES)
    together = extract(pages, NAMES, [PatternRelator(GRAPH)])
    assert together == [row for p in pages for row in extract([p], NAMES, [PatternRelator(GRAPH)])]


@pytest.mark.parametrize("text", ["Gout presents with fever, rash and joint pain. ", "gout fever ", "a b (", "fever, ",
                                  "gout\n\n- fever\n", "not gout ", "it patients "])
def test_a_page_of_a_megabyte_takes_linear_time(tmp_path, text):
    """Eight times the text takes about eight times as long; quadratic would be 64 times."""
    def seconds(size: int) -> float:
        (tmp_path / "big.txt").write_text("Gout\n" + text * (size // len(text)))
        start = time.process_time()
        extract(read_pages(tmp_path), NAMES, [PatternRelator(GRAPH)])
        return time.process_time() - start

    assert seconds(1_000_000) < 20 * max(seconds(125_000), 0.05)


def test_the_numbers_on_the_labelled_pages():
    """Lower bounds; bench/extract.py prints the numbers themselves."""
    found_, wanted = predictions(), labels()
    for part, n in (("dev", 132), ("test", 139)):
        result = measure(part, found_, wanted)
        assert result["precision"]["rate"] >= 0.97 and result["recall"]["rate"] >= 0.92 and result["recall"]["n"] == n


SYMPTOMS = ["fever", "rash", "joint pain", "nausea", "fatigue"]


@pytest.mark.parametrize("frame", ["Gout presents with {}.", "Patients complain of {}.", "{} are typical of gout.",
                                   "The most troublesome symptoms are {}.", "Many people experience {}."])
def test_the_order_and_the_length_of_a_list_change_nothing(frame):
    for turn in range(5):
        for size in range(2, 6):
            names = (SYMPTOMS[turn:] + SYMPTOMS[:turn])[:size]
            for comma in ("", ","):
                text = frame.format(", ".join(names[:-1]) + f"{comma} and {names[-1]}")
                assert found(text) == {("gout", "has_symptom", name) for name in names}, text


@pytest.mark.parametrize("text", [
    "{} remains the mainstay.", "Most patients respond to {}.", "Control is achieved with {}.",
    "{} is what doctors prescribe.", "Therapy: {}.", "First choice is {}.", "The backbone of care is {}.",
])
def test_a_cue_anywhere_in_the_clause_and_the_types_are_enough(text):
    """Any drug, any disease: the wording holds for all names of the types, and for no others."""
    for disease, drug in (("Gout", "colchicine"), ("Tuberculosis", "isoniazid"), ("Graves disease", "methimazole")):
        assert found(text.format(drug), title=disease) == {(disease if disease[0] == "G" and " " in disease
                                                             else disease.lower(), "first_line_treatment", drug)}
    assert not any("treatment" in relation for _, relation, _ in found(text.format("fever")))
    assert found(text.format("colchicine"), title="Notes") == set()


@pytest.mark.parametrize("text, triple", [
    ("Gout is old. Colchicine helps. The drug causes nausea.", ("colchicine", "adverse_effect", "nausea")),
    ("It is due to Mycobacterium tuberculosis. The organism spreads by airborne droplet nuclei.",
     ("Mycobacterium tuberculosis", "transmitted_by", "airborne droplet nuclei")),
])
def test_a_noun_stands_for_the_last_of_its_type(text, triple):
    assert triple in found(*split(text))


@pytest.mark.parametrize("title, text, triples", [
    ("Notes", "Colchicine for gout may cause nausea.", {("gout", "first_line_treatment", "colchicine"),
                                                        ("colchicine", "adverse_effect", "nausea")}),
    ("Lyme disease", "It is caused by Borrelia burgdorferi, which is spread by an Ixodes tick bite.",
     {("Lyme disease", "caused_by", "Borrelia burgdorferi"),
      ("Borrelia burgdorferi", "transmitted_by", "Ixodes tick bite")}),
    ("Marfan syndrome", "Echocardiography reveals aortic root dilatation.",
     {("echocardiography", "detects", "aortic root dilatation"),
      ("Marfan syndrome", "has_imaging_finding", "aortic root dilatation")}),
])
def test_which_partner_a_name_takes(title, text, triples):
    assert triples - {("gout", "first_line_treatment", "colchicine")} <= found(text, title=title) <= triples


@pytest.mark.parametrize("text", ["Do not give propranolol in asthma.", "Propranolol should not be used in asthma.",
                                  "Propranolol is not recommended in asthma.", "Asthma: avoid propranolol."])
def test_what_is_not_to_be_given_is_contraindicated(text):
    assert found(text, title="Notes") == {("propranolol", "contraindicated_in", "asthma")}


@pytest.mark.parametrize("text, first, other", [
    ("Treatment is with allopurinol or, alternatively, colchicine.", {"allopurinol"}, {"colchicine"}),
    ("Allopurinol is given first, and colchicine is added.", {"allopurinol"}, {"colchicine"}),
    ("Second-line options are allopurinol and colchicine.", set(), {"allopurinol", "colchicine"}),
    ("Allopurinol and colchicine are given.", {"allopurinol", "colchicine"}, set()),
])
def test_a_drug_after_a_word_for_more_is_another_treatment(text, first, other):
    assert found(text) == {("gout", "first_line_treatment", d) for d in first} | {
        ("gout", "other_treatment", d) for d in other}


# ---- a model's answers

def ask(answer: str, text: str = "Gout (GT) presents with fever and is treated with colchicine.") -> AnswersRelator:
    p = page(text)
    relator = AnswersRelator(GRAPH, NAMES, {"p:1": [answer]})
    relator.got = [row.triple for row in extract([p], NAMES, [relator])]
    return relator


@pytest.mark.parametrize("answer, got, counts", [
    ("gout | has_symptom | fever", [("gout", "has_symptom", "fever")], {}),
    ("<think>gout | has_symptom | rash</think>\n- Gout | has symptom | Fever\n2. gout | has_symptom | fever",
     [("gout", "has_symptom", "fever")], {}),
    ("gout | has_symptom | rash", [], {"name not in the sentence": 1}),
    ("gout | likes | fever\nnone\nfever | has_symptom | gout\ngout | has_symptom | blue", [],
     {"unknown relation": 1, "not a triple": 1, "types do not fit": 1, "unknown name": 1}),
    ("gout | has_symptom | fever with rash", [], {"unknown name": 1}),
    ("fever | has_symptom | fever", [], {"name not in the sentence": 1}),
    ("gout | first_line_treatment | colchicine | yes", [], {"not a triple": 1}),
    ("", [], {}),
])
def test_an_answer_is_taken_only_for_names_of_its_sentence_and_types_that_fit(answer, got, counts):
    relator = ask(answer)
    assert relator.got == got and relator.counts == counts


def test_answers_come_by_the_line_of_the_prompt_or_by_the_sentence(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [{"id": "1", "text": "x"}, {"id": "2", "text": "y"}, {"id": "p:4", "text": "z"},
             {"id": "3", "text": "lost"}, {"id": "0", "text": "lost"}, {"id": "p:1", "text": "no entities"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_answers(path, ["p:2", "p:4"]) == ({"p:2": ["x"], "p:4": ["y", "z"]}, 3)


@pytest.mark.parametrize("line", ['{"id": 3, "text": "x"}', '{"id": "1"}', "{", "[]"])
def test_bad_answers_are_refused_with_their_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "text": "x"}\n' + line + "\n")
    with pytest.raises(BadInput, match="a.jsonl:2: "):
        read_answers(path, ["p:1"])


def test_a_prompt_is_one_line_and_lists_what_may_be_said():
    (sentence, told), = prompted([page("Gout has \\n fever.", "Gout is old.", "It is old, fever.")], NAMES)[:1]
    line = prompt(sentence, told, NAMES.types, signatures(GRAPH))
    assert "\n" not in line and "Gout has /n fever." in line.replace("\\n", "\n")
    assert "gout (Disease); fever (Symptom)" in line and "has_symptom" in line and "encodes" not in line
    pages = [page("Gout has fever.", "Gout is old.", "It is old, fever.")]
    assert [s.number for s, _ in prompted(pages, NAMES)] == [1, 3]


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


def test_prompts_and_answers_go_through_files(folder):
    assert run(folder, "--prompts-out", str(folder / "prompts.txt")) == 0
    assert len((folder / "prompts.txt").read_text().splitlines()) == 2
    (folder / "a.jsonl").write_text(json.dumps({"id": "2", "text": "gout | has_symptom | rash"}) + "\n")
    assert run(folder, "--answers", str(folder / "a.jsonl")) == 0
    assert [line.split("\t")[-1] for line in (folder / "out.tsv").read_text().splitlines()] == [
        "how", "pattern", "pattern", "model"]


@pytest.mark.parametrize("content, place", [
    (b"Gout\nfine\nfi\xe8vre\n", "bad.txt:3: not UTF-8 text"), (b"Gout\na\0b\n", "bad.txt:2: a NUL byte"),
    (b"\nGout\n", "bad.txt:1: the first line must be the title"), (b"", "bad.txt:1: the first line"),
])
def test_poison_pages_are_refused_with_file_and_line(folder, capsys, content, place):
    (folder / "pages" / "bad.txt").write_bytes(content)
    (folder / "out.tsv").write_text("precious")
    assert run(folder) == 2
    err = capsys.readouterr().err
    assert place in err and err.count("\n") == 1 and (folder / "out.tsv").read_text() == "precious"


@pytest.mark.parametrize("name", ["a\tb.txt", "a:b.txt", "a\nb.txt"])
def test_names_of_pages_that_would_break_the_table(folder, capsys, name):
    (folder / "pages" / name).write_text("Gout\n")
    assert run(folder) == 2 and "printable" in capsys.readouterr().err


def test_folders_without_pages(tmp_path, capsys):
    assert run(tmp_path) == 2 and "not a folder" in capsys.readouterr().err
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "readme.md").write_text("Gout\n")
    assert run(tmp_path) == 2 and "no *.txt pages" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["gout", "gout\tGT\tx", "goot\tGT", "gout\t--"])
def test_bad_synonyms(tmp_path, line):
    (tmp_path / "s.tsv").write_text(f"gout\tthe kingly disease\n\n{line}\n")
    with pytest.raises(BadInput, match="s.tsv:3: "):
        read_synonyms(tmp_path / "s.tsv", NAMES.types)


def test_a_question_is_no_statement():
    assert assumed("Is gout old?") and not assumed("Gout is old.")
