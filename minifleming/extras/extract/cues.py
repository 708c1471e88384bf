"""Which words make a relation of a pair: the types allow it, and one cue word in the clause says it.

    Disease, Drug + "mainstay"        ->  first_line_treatment      "Allopurinol remains the mainstay in gout."
    Disease, Drug + "contraindicated" ->  contraindicated_in        "Gout: aspirin is contraindicated."

A cue is the beginning of a word ("treat" for "treatment" and "treated"). The rows stand in the order in which they
win: where a clause has cues for two relations of the same pair, the first row counts. A pair of types that has only
one meaning (a drug and a drug action) needs no cue. A relation that the table lacks is told by the words of phrases.py.
"""

from __future__ import annotations

import re
from functools import lru_cache

from minifleming.rods.graph import Graph
from minifleming.rods.phrases import phrase

Signature = dict[str, set[tuple[str, str]]]  # relation -> the pairs (head type, tail type) that it joins

TREATMENT = ("first_line_treatment", "other_treatment")
_TREAT = """treat therap first-line manag given give gives prescri used use. used. uses. using. indicat drug
    medic choice option mainstay cornerstone backbone rest rely relies receiv respon cure control reliev help add
    adjunct replac
    taken take alternativ second-line prefer recommend offer administ care initiat switch benefit work effective
    improv superse reserv keep kept standard answer reach combin pair together alongside need requir is&for are&for"""
_FIND = """present manifest symptom sign feature finding hallmark characteri typical classic complain develop experienc
    suffer notice report have has had show reveal demonstrat display exhibit includ caus lead result produc bring
    common frequent often usual seen see found find observ occur appear accompan associat mark ensu come complicat
    suggest point indicat disclos there begin onset start attack follow arise expect note picture visible evident
    test scan film imag laborator triad record gives struck strik trouble bother detect yield combin preced herald
    early late support favor favour clue alert turn univers telling rule. almost nearly invariab most many half
    third percent prominent predominat dominat cardinal key main distinctive notable betray progress culminat evolv
    persist recur hint feel felt"""
_CAUSE = """caus due result mutat varia gene. genes. defect arise stem infect agent organism pathogen trigger
    responsible culprit origin root behind underl consequence develop follow lead produc lies reflect because
    explain driv
    mechanism pathogenesis blame brought bring lie problem directed antibod deposit trace link risk predispos relat
    reaction"""
CUES = [  # in order of precedence
    ("contraindicated_in", """
    contraindicat avoid unsafe harmful forbid forbidden prohibit withheld must&not should&not may&not never&be
    precaution unsuitable dangerous inadvisable do&not not&recommended not&advised not&suitable not&safe"""),
    *((relation, _TREAT) for relation in (*TREATMENT, "treats", "palliates", "treats_off_label")),
    ("adverse_effect", """
    caus adverse side unwanted undesir toxic reaction lead result produc risk report induc complicat occur develop
    trigger follow include bring harm hazard watch monitor provok associat warn blame price troublesome nuisance
    complain experienc suffer common frequent limit"""),
    ("detects", """detect identif show reveal demonstrat find finds found seen recogni disclos visible display
    look yield"""),
    ("explains", """expla account caus lead result produc responsib underl behind reason why due because give
    aris bring"""),
    *((relation, _FIND) for relation in ("has_symptom", "has_lab_finding", "has_imaging_finding", "has_phenotype")),
    *((relation, _CAUSE) for relation in ("caused_by", "has_mechanism", "has_cause", "associated_gene")),
    ("confirmed_by", """
    confirm diagnos test standard establish prov verif detect order perform clinch definit rest identif settle
    suspicion suspect decid decisive secure certain sure made"""),
    ("affects", """
    affect involv attack damag infect inflam disorder destr invad target degenerat disease injur harm accumul
    deposit loss lesion strik scar organ confined ravag fail lost wast spread weaken swell swollen bear brunt"""),
    ("transmitted_by", "spread transmi acquir carr pass contract catch caught bite infect rout contact inhal expos"),
    ("has_prevalence", "is. are. was. remain count rank consider regard"),
]
SELF_EVIDENT = {"drug_mechanism", "acts_on", "encodes"}  # the types alone say it
ILLNESS = ("Drug", "Disease")  # "Colchicine for gout may cause nausea": a disease as an effect must be called so
ILL = re.compile(r"\b(?:adverse|side effect|toxic|induc)", re.IGNORECASE)
ALSO = re.compile(
    r"\b(?:also|alternativ\w*|second|third|add\w*|adjunct\w*|instead|on top|together with|besides|else|reserv\w*"
    r"|refractory|resistant|fails?|failed|fallback|otherwise|intoleran\w*"
    r"|(?:not|cannot) (?:tolerate|take)|unable|later|another|(?<!any )other"
    r"|combined? with|along with|in combination|escalat\w*|substitut\w*|back-?up|relapse\w*)\b", re.I)


def regex(stems: str) -> re.Pattern:
    """Any of the stems at the start of a word; "&": a space or a word between; "x." and short stems: whole words."""
    parts = [stem.replace("&", r" (?:\w+ )?").replace(".", r"\b") + (r"(?:s|es|ed|ing)?\b" if len(stem) < 4 else "")
             for stem in stems.split()]
    return re.compile(rf"\b(?:{'|'.join(parts)})", re.IGNORECASE)


RULES = {relation: regex(stems) for relation, stems in CUES}
ORDER = [relation for relation, _ in CUES]


def signatures(graph: Graph) -> Signature:
    """Which pairs of types each relation joins in a graph."""
    found: Signature = {}
    for head, relation, tail in graph.triples:
        found.setdefault(relation, set()).add((graph.type_of(head), graph.type_of(tail)))
    return found


@lru_cache(maxsize=4096)
def said(relation: str, text: str) -> bool:
    """Does the text hold a cue for the relation?"""
    if relation in SELF_EVIDENT:
        return True
    rule = RULES.get(relation)
    words = (phrase(relation).verb, phrase(relation).link)
    return bool(rule.search(text)) if rule else any(w in text.lower() for w in words)


def rank(relation: str) -> int:
    """The place in the order of precedence; a relation that the table lacks comes last."""
    return ORDER.index(relation) if relation in ORDER else len(ORDER)


def relation_of(a: str, b: str, text: str, signature: Signature) -> tuple[str, bool] | None:
    """The relation of two types that the text says, and whether ``a`` is its head."""
    fits = [(r, forward) for r in signature for pair, forward in (((a, b), True), ((b, a), False))
            if pair in signature[r] and said(r, text)
            and (pair != ILLNESS or r != "adverse_effect" or ILL.search(text))]
    return min(fits, key=lambda fit: rank(fit[0]), default=None)
