"""How a relation is said: as a statement in either direction, and as a link in a question.

One vocabulary, three users: questions (question.py), reasoning traces (cold_start/teacher.py) and the look-up of
stated hops (hops.py). A relation that the table lacks is said by its name with spaces.
"""

from __future__ import annotations

from typing import NamedTuple


class Phrase(NamedTuple):
    forward: str  # "HEAD forward TAIL"
    backward: str  # "TAIL backward HEAD"
    link: str  # the tail, asked for: "the LINK"
    link_back: str  # the head, asked for: "the LINK_BACK"


PHRASES = {
    "has_symptom": Phrase("presents with", "points to", "symptom", "disease with that symptom"),
    "has_lab_finding": Phrase("shows", "points to", "lab finding", "disease with that lab finding"),
    "has_imaging_finding": Phrase("images as", "points to", "imaging finding",
                                  "disease with that imaging finding"),
    "has_mechanism": Phrase("arises from", "underlies", "mechanism", "disease with that mechanism"),
    "explains": Phrase("explains", "is explained by", "explained finding", "mechanism behind it"),
    "confirmed_by": Phrase("is confirmed by", "confirms", "confirmatory test", "disease that it confirms"),
    "detects": Phrase("detects", "is detected by", "detected finding", "test that detects it"),
    "first_line_treatment": Phrase("is treated with", "treats", "first-line treatment", "disease that it treats"),
    "other_treatment": Phrase("is also treated with", "also treats", "other treatment",
                              "disease that it also treats"),
    "drug_mechanism": Phrase("works by", "is the action of", "action", "drug with that action"),
    "acts_on": Phrase("acts on", "is acted on by", "molecular target", "action on that target"),
    "contraindicated_in": Phrase("is contraindicated in", "forbids", "contraindication", "drug it forbids"),
    "adverse_effect": Phrase("may cause", "is an adverse effect of", "adverse effect", "drug that may cause it"),
    "caused_by": Phrase("is caused by", "causes", "cause", "disease that it causes"),
    "encodes": Phrase("encodes", "is encoded by", "encoded protein", "gene that encodes it"),
    "transmitted_by": Phrase("spreads by", "spreads", "route of transmission", "pathogen that it spreads"),
    "affects": Phrase("affects", "is affected by", "affected organ", "disease that affects it"),
    "has_prevalence": Phrase("is a", "includes", "prevalence", "disease of that prevalence"),
}

# Relations of other graphs (hpo.py, hetionet.py, primekg.py). Apart: the tiny tokenizer is made from the table above.
OTHERS = {
    "has_phenotype": Phrase("presents with", "points to", "phenotype", "disease with that phenotype"),
    "associated_gene": Phrase("is associated with the gene", "is associated with", "associated gene",
                              "disease associated with that gene"),
    "has_inheritance": Phrase("follows", "is the inheritance of", "mode of inheritance",
                              "disease with that mode of inheritance"),
    "has_onset": Phrase("begins with", "is the onset of", "onset", "disease with that onset"),
    "treats": Phrase("is given for", "is treated by", "indication", "drug given for it"),
    "palliates": Phrase("palliates", "is palliated by", "disease it palliates", "drug that palliates it"),
    "treats_off_label": Phrase("is given off label for", "is treated off label by", "off-label indication",
                               "drug given off label for it"),
    "targets": Phrase("targets", "is targeted by", "molecular target", "drug that targets it"),
    "binds": Phrase("binds", "is bound by", "protein it binds", "compound that binds it"),
    "located_in": Phrase("is located in", "is the place of", "location", "disease located there"),
    "has_cause": Phrase("has the cause", "is the cause of", "cause", "disease that it causes"),
    "expresses": Phrase("expresses", "is expressed in", "expressed gene", "tissue that expresses it"),
    "interacts_with": Phrase("interacts with", "interacts with", "interacting gene", "interacting gene"),
    "participates_in": Phrase("participates in", "involves", "process it is part of", "gene that takes part in it"),
    "resembles": Phrase("resembles", "resembles", "disease that resembles it", "disease that resembles it"),
    "inhibitor_of": Phrase("inhibits", "is inhibited by", "protein that it inhibits", "inhibitor"),
    "agonist_of": Phrase("activates", "is activated by", "receptor that it activates", "agonist"),
    "antagonist_of": Phrase("blocks", "is blocked by", "receptor that it blocks", "antagonist"),
    "blocker_of": Phrase("closes", "is closed by", "channel that it closes", "channel blocker"),
    "opener_of": Phrase("opens", "is opened by", "channel that it opens", "channel opener"),
    "activator_of": Phrase("stimulates", "is stimulated by", "protein that it stimulates", "activator"),
    "positive_allosteric_modulator_of": Phrase("enhances", "is enhanced by", "receptor that it enhances",
                                               "positive allosteric modulator"),
    "has_feature": Phrase("has the feature", "is a feature of", "feature", "disease with that feature"),
    "triggered_by": Phrase("is triggered by", "triggers", "trigger", "disease that it triggers"),
    "upregulates": Phrase("upregulates", "is upregulated by", "gene that it upregulates", "regulator upwards"),
    "downregulates": Phrase("downregulates", "is downregulated by", "gene that it downregulates",
                            "regulator downwards"),
    "regulates": Phrase("regulates", "is regulated by", "gene that it regulates", "gene that regulates it"),
    "covaries_with": Phrase("covaries with", "covaries with", "covarying gene", "covarying gene"),
    "includes": Phrase("includes", "belongs to the class", "member", "class"),
}


def phrase(relation: str) -> Phrase:
    plain = relation.replace("_", " ")
    return PHRASES.get(relation) or OTHERS.get(relation) or Phrase(
        plain, f"is {plain} of", f"'{plain}' partner", f"reverse '{plain}' partner")


def known(relation: str) -> bool:
    """Is there a way to say it? What has none is told by its name in quotes."""
    return relation in PHRASES or relation in OTHERS


def link(relation: str, forward: bool) -> str:
    """What a question calls the far end of an edge. Two relations, or the two directions of a symmetric one, may be
    told alike; then a question means both."""
    words = phrase(relation)
    return words.link if forward else words.link_back


def statement(head: str, relation: str, tail: str, forward: bool = True) -> str:
    """One edge as a clause, read from its head or, if not ``forward``, from its tail."""
    words = phrase(relation)
    return f"{head} {words.forward} {tail}" if forward else f"{tail} {words.backward} {head}"


def listing(names: list[str]) -> str:
    """"a", "a and b", "a , b and c": punctuation stands apart, so that a name is one token."""
    return names[0] if len(names) == 1 else " , ".join(names[:-1]) + " and " + names[-1]
