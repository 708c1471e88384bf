"""The patient of a vignette: age, sex and absent findings.

    A 34-year-old woman presents with fever and rash. The patient has no cough.

Competing diagnoses have the absent findings, the root has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from minifleming.rods.distractors import contains
from minifleming.rods.graph import Graph
from minifleming.rods.walk import Step, Walk, Walker

from .variants import part_of

# Youngest and oldest age in years by the onset terms of the Human Phenotype Ontology: not before
# the onset, and late enough for most findings to be present.
AGES = {
    "Antenatal onset": (1, 9), "Congenital onset": (1, 9), "Neonatal onset": (1, 9),
    "Infantile onset": (1, 9), "Childhood onset": (2, 12), "Juvenile onset": (6, 15),
    "Adult onset": (18, 75), "Young adult onset": (17, 39), "Early young adult onset": (17, 24),
    "Intermediate young adult onset": (19, 30), "Late young adult onset": (25, 39),
    "Middle age onset": (41, 59), "Late onset": (61, 80),
}
ADULT = 16
CHILDREN = {"woman": "girl", "man": "boy", "patient": "child"}
FEMALE = re.compile(
    r"(?:ovar(?:y|ies|ian)|\buter(?:us|ine|i)\b|vagin|vulv|menstru|menorrh|menarche|metrorrhag|"
    r"menopaus|pregnan|gestational (?!age)|eclamp|endometri|postpartum|cervical (?:cancer|motion)|"
    r"fallopian|clitor|\blabia\b|\bfemale|Turner syndrome|Rett syndrome)", re.IGNORECASE)
MALE = re.compile(
    r"(?:prostat|testic|\btestis|\btestes|penile|penis\b|scrot(?!al tongue|alis)|sperm|hypospadias|"
    r"cryptorchid|orchi(?:tis|dism)|anorchi|Klinefelter|erectile|ejaculat|priapism|\bphimosis|"
    r"\bmale\b|gynecomastia|epididym|varicocele)", re.IGNORECASE)
MALE_INHERITANCE = {"X-linked recessive inheritance", "Y-linked inheritance"}


def describe_patient(walk: Walk, graph: Graph, rng: np.random.Generator,
                     absent: tuple[str, ...]) -> str:
    """Returns age and sex, as far as the graph and the names give them.

    Neither is stated if the chain asks for it: the age for an onset, the sex for an inheritance.
    """
    relations = {step.relation for step in walk.chain}
    onsets = [] if "has_onset" in relations else graph.tails(walk.root, "has_onset")
    ages = [AGES[name] for name in onsets if name in AGES]
    inheritance = graph.tails(walk.root, "has_inheritance")
    sex = "patient"
    if "has_inheritance" not in relations:
        # only with an onset and an inheritance is it known that the disease affects both sexes
        sex = draw_sex(walk, inheritance, absent, rng, either=bool(ages) and bool(inheritance))
    if not ages:
        return f"A {sex}"
    age = int(rng.integers(ages[0][0], ages[0][1] + 1))
    article = "An" if str(age).startswith("8") or age in (11, 18) else "A"
    return f"{article} {age}-year-old {sex if age >= ADULT else CHILDREN[sex]}"


def draw_sex(walk: Walk, inheritance: list[str], absent: tuple[str, ...], rng: np.random.Generator,
             either: bool) -> str:
    """Returns woman or man if a name implies it, patient if the names disagree.

    Otherwise woman or man at random if ``either``, else patient.
    """
    text = " ".join([walk.root, *(step.end for step in walk.evidence), *absent])
    female = bool(FEMALE.search(text))
    male = bool(MALE.search(text)) or not MALE_INHERITANCE.isdisjoint(inheritance)
    drawn = ("woman", "man")[int(rng.integers(2))] if either else "patient"
    if female and male:
        return "patient"
    if female:
        return "woman"
    return "man" if male else drawn


MAX_ABSENT = 2
FREQUENT = 0.3  # the lower bound of "frequent" in the Human Phenotype Ontology


def draw_absent(walk: Walk, walker: Walker, diagnoses: list[str], rng: np.random.Generator,
                can_name: Callable[[str], bool]) -> tuple[Step, ...]:
    """Returns up to ``MAX_ABSENT`` findings that a diagnosis often has and the root has not.

    Findings that the graph excludes for the root come first. ``can_name`` rejects findings that the
    question must not name.
    """
    steps: dict[str, Step] = {}
    for diagnosis in diagnoses:
        for step in walker.findings(diagnosis):
            frequency = walker.graph.frequency(diagnosis, step.relation, step.end)
            often = frequency is None or frequency >= FREQUENT
            if often and can_name(step.end) and not root_has(walk.root, step.end, walker):
                steps.setdefault(step.end, Step(walk.root, step.relation, step.end, True))
    names = list(steps)
    names = [names[i] for i in rng.permutation(len(names))]
    excluded = walker.graph.tails(walk.root, "lacks_phenotype")
    names.sort(key=lambda name: name not in excluded)
    return tuple(steps[name] for name in names[: int(rng.integers(1, MAX_ABSENT + 1))])


def root_has(root: str, finding: str, walker: Walker) -> bool:
    """Returns whether the root has the finding, by the graph or by the name of another finding."""
    node = walker.graph.node_id[root]
    for relation in walker.evidence_relations:
        nodes = walker.nodes_with_finding(Step(root, relation, finding, True))
        if contains(nodes, node):
            return True
    return any(part_of(finding, step.end) for step in walker.findings(root))
