"""Kinship by name: a numbered series is one family; diseases, drugs and molecules that only share a word are not."""

import itertools

import numpy as np
import pytest

from minifleming.extras.wording.variants import ImpliedFindings, are_variants, family, overlap, part_of, same_family
from tests.rods.toy_graphs import build

KIN = [
    ("Retinitis pigmentosa 12", "Retinitis pigmentosa 30"), ("Retinitis pigmentosa", "Retinitis pigmentosa 30"),
    ("Spinocerebellar ataxia 3", "Spinocerebellar ataxia 17"), ("Noonan syndrome", "Noonan syndrome 8"),
    ("Deafness, autosomal recessive 4", "Deafness, autosomal dominant 9"), ("Cataract 1", "Cataract 22A"),
    ("Deafness, X-linked 2", "Deafness, congenital neurosensory"), ("Dystonia 6, torsion", "Dystonia 17"),
    ("Glycogen storage disease II", "Glycogen storage disease IXa"), ("Mucolipidosis III", "Mucolipidosis IV"),
    ("Glycogen storage disease type Ia", "Glycogen storage disease type Ib"),
    ("Osteogenesis imperfecta, type XV", "Osteogenesis imperfecta, type I"),
    ("Brachydactyly, type A3", "Brachydactyly, type E2"), ("Joubert syndrome 1", "Joubert syndrome 30"),
    ("Congenital disorder of glycosylation, type Ig", "Congenital disorder of glycosylation, type It"),
    ("type 1 diabetes mellitus", "type 2 diabetes mellitus"), ("diabetes mellitus", "type 1 diabetes mellitus"),
    ("Hereditary xanthinuria", "Xanthinuria, type II"), ("Familial hypercholesterolemia", "Hypercholesterolemia"),
    ("Autosomal dominant polycystic kidney disease", "Autosomal recessive polycystic kidney disease"),
    ("Krabbe disease", "Infantile Krabbe disease"), ("Adult Krabbe disease", "Krabbe disease, late-onset"),
    ("Muscular dystrophy (limb-girdle)", "Muscular dystrophy [congenital]"), ("Gout; primary", "Gout"),
    ("hemophilia A", "hemophilia B"), ("hepatitis A", "hepatitis C"), ("Usher syndrome, type 1B", "Usher syndrome"),
    ("Neurofibromatosis type 1", "Neurofibromatosis type 2"), ("Porencephaly-1", "Porencephaly-2"),
    ("Fanconi anemia, complementation group A", "Fanconi anemia complementation group D2"),
    ("Mitochondrial complex I deficiency 27", "Mitochondrial complex I deficiency"),
    ("myopathy", "nemaline myopathy"), ("pneumonia", "bacterial pneumonia"), ("seizures", "febrile seizures"),
    ("skin biopsy", "direct immunofluorescence of skin biopsy"), ("liver biopsy", "liver biopsy with copper stain"),
    ("cyclooxygenase-1", "cyclooxygenase-2"), ("cyclooxygenase", "platelet cyclooxygenase-1"), ("HIV-1", "HIV-2"),
    ("interferon beta-1a", "interferon beta-1b"), ("benzathine penicillin G", "benzathine penicillin V"),
    ("MARFAN SYNDROME", "Marfan syndrome"), ("Severe heart failure", "heart failure"),
    ("Charcot-Marie-Tooth disease, axonal, type 2A1", "Charcot-Marie-Tooth disease, type 4F"),
    ("Sick sinus syndrome 1", "Sick sinus syndrome 4"), ("Mucopolysaccharidosis alpha", "Mucopolysaccharidosis gamma"),
]
APART = [
    ("diabetes mellitus", "diabetes insipidus"), ("myotonic dystrophy", "muscular dystrophy"), ("BRCA1", "BRCA2"),
    ("Vitamin A", "Vitamin K"), ("low vitamin D", "low vitamin B12"), ("interferon alpha", "interferon beta"),
    ("interferon alpha-2b", "interferon beta-1a"), ("interleukin 6", "interleukin 17"), ("IL-6", "IL-17"),
    ("HLA-B27", "HLA-B51"), ("positive HLA-B27", "positive HLA-B51"), ("NKX2-1", "NKX2-5"), ("PD-1", "PD-2"),
    ("factor VIII", "factor IX"), ("coagulation factor V", "coagulation factor VIII"), ("protein C", "protein S"),
    ("low complement C3", "low complement C4"), ("immunoglobulin G", "immunoglobulin M"), ("TNF-alpha", "TNF-beta"),
    ("hemoglobin A1c", "hemoglobin S"), ("trisomy 18", "trisomy 21"), ("chromosome 4", "chromosome 5"),
    ("protein C deficiency", "protein S deficiency"), ("measles", "rubella"), ("typhoid fever", "yellow fever"),
    ("Marfan syndrome", "Noonan syndrome"), ("Crohn disease", "celiac disease"), ("lupus", "lung cancer"),
    ("hypothyroidism", "hyperthyroidism"), ("hypertension", "hypotension"), ("iron", "iron deficiency anemia"),
    ("ataxia", "Friedreich ataxia"), ("aplastic anemia", "hemolytic anemia"), ("prednisone", "prednisolone"),
    ("atrial fibrillation", "ventricular fibrillation"), ("acute myeloid leukemia", "chronic myeloid leukemia"),
    ("myasthenia gravis", "Lambert-Eaton myasthenic syndrome"), ("cystic fibrosis", "pulmonary fibrosis"),
    ("polycythemia vera", "essential thrombocythemia"), ("gout", "pseudogout"), ("COL4A3", "COL4A5"),
]


def test_there_are_enough_pairs():
    assert len(KIN) > 40 and len(APART) > 35


@pytest.mark.parametrize("a, b", KIN)
def test_varieties_are_kin(a, b):
    assert same_family(a, b)


@pytest.mark.parametrize("a, b", APART)
def test_what_only_shares_a_word_is_apart(a, b):
    assert not same_family(a, b)


def test_kinship_is_symmetric_reflexive_and_blind_to_case_and_outer_space():
    names = sorted({name for pair in KIN + APART for name in pair})
    for a, b in itertools.product(names, names[::3]):
        assert same_family(a, b) == same_family(b, a) == same_family(a.upper(), f" {b} ")
    assert all(same_family(name, name) for name in [*names, "", "1", "type 1", "A", ",", "(x)", "autosomal dominant"])


def test_a_number_a_letter_or_an_inheritance_more_changes_no_family():
    rng = np.random.default_rng(0)
    stems = ["Leber amaurosis", "Bardet-Biedl syndrome", "Nephronophthisis", "Epidermolysis bullosa", "Warburg disease"]
    ends = ["", " 7", " 12B", ", type 4", " type IIb", ", X-linked", " V", "-3", " (severe)", "; mild", " [alpha]",
            " 2A1", ", autosomal recessive 8", " subtype 3", " complementation group C", " form", " grade 2"]
    starts = ["", "Familial ", "Congenital ", "Autosomal dominant ", "X-linked ", "Early-onset ", "Type 2 ", "Severe "]
    for stem in stems:
        forms = [starts[rng.integers(len(starts))] + stem + end for end in ends]
        assert {family(form) for form in forms} == {stem.casefold()}
    for a, b in itertools.combinations(stems, 2):
        assert not same_family(f"{a} 1", f"{b} 1")


def test_a_short_word_at_the_end_makes_no_family_a_long_one_does():
    assert not same_family("disease", "Crohn disease") and same_family("cataract", "zonular cataract")
    assert not same_family("cataract", "cataractous lens"), "words, not letters"
    assert not same_family("zonularcataract", "cataract")


def test_variants_have_similar_names_or_a_gene_in_common():
    graph = build([("d1", "is_a", "d3"), ("d9", "is_a", "d3"), ("Retinitis pigmentosa 1", "r", "Retinitis pigmentosa 2")])
    assert are_variants(graph, "Retinitis pigmentosa 1", "Retinitis pigmentosa 2")
    assert not are_variants(graph, "d1", "d9")
    genes = build([("d1", "associated_gene", "g1"), ("d2", "associated_gene", "g1"), ("d3", "associated_gene", "g2")])
    assert are_variants(genes, "d1", "d2") and not are_variants(genes, "d1", "d3")


@pytest.mark.parametrize(("part", "whole", "is_part"), [
    ("cough", "chronic cough", True), ("Cough", "cough, chronic", True), ("chronic cough", "cough", False),
    ("tufted angioma", "Angioma, tufted", True), ("fever", "absence of fever", False), ("anemia", "no anemia", False),
    ("cough", "coughing", False), ("type 2", "type 3", False), ("pain", "pain", True),
    ("Horner syndrome", "Congenital Horner syndrome", True)])
def test_a_name_says_what_its_words_say(part, whole, is_part):
    assert part_of(part, whole) is is_part
    assert overlap(part, whole) is overlap(whole, part) is (is_part or part_of(whole, part))


def test_findings_that_imply_one_by_name_against_a_loop_over_all():
    names = ["cough", "chronic cough", "dry chronic cough", "fever", "no cough", "pain of the chest", "chest pain"]
    graph = build([("d1", "has_symptom", name) for name in names] + [("d1", "r", "loud cough")],
                  dict.fromkeys(names, "Symptom"))
    implied = ImpliedFindings(graph, ["has_symptom"])
    for name in names:
        assert [graph.names[i] for i in implied.by(name)] == sorted(
            (other for other in names if part_of(name, other)), key=graph.names.index)
    assert len(implied.by("cough")) == 3, "not what is no finding, and not what says no"


@pytest.mark.parametrize("word", ["type", "subtype", "form", "grade", "stage", "class", "group", "variant"])
def test_each_word_before_a_number_goes_with_it(word):
    assert family(f"Gout {word} 2") == family(f"Gout {word}") == "gout"


@pytest.mark.parametrize("word", ["autosomal", "X-linked", "Y-linked", "mitochondrial", "digenic", "sporadic"])
def test_each_word_of_inheritance_or_onset_is_no_part_of_a_family(word):
    assert family(f"{word} gout 4") == "gout"


@pytest.mark.parametrize("word", ["vitamin", "interleukin", "trisomy", "monosomy", "chromosome", "factor"])
def test_each_word_of_no_series_keeps_its_number(word):
    assert not same_family(f"{word} 7", f"{word} 9")


def test_names_of_nothing_but_marks_or_inheritance_are_families_of_their_own():
    names = ["(x)", "(y)", ",", "autosomal dominant", "congenital", "late-onset"]
    assert len({family(name) for name in names}) == len(names)
