"""Age and sex of the patient in a vignette: "A 34-year-old woman"."""

from __future__ import annotations

import re

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.walk import Walk

# Youngest and oldest age in years by the onset terms of the Human Phenotype Ontology: not before the
# onset, and late enough for most findings to be present.
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


def describe_patient(walk: Walk, graph: Graph, rng: np.random.Generator, absent: tuple[str, ...]) -> str:
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
