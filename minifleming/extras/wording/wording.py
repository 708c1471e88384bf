"""How an item is asked: the wording of its question and its options, in English or in Chinese.

    plain      A patient has fever , rash and joint pain . What is the first-line treatment of this disease ?
    varied     On examination there are fever, rash and joint pain. How is this disease treated first?
    vignette   A 34-year-old woman presents with fever, rash and joint pain. The patient has no cough. Which treatment
               is first choice for this disease?
    Chinese    患者有以下表现：发热、皮疹、关节痛。该疾病的一线治疗是什么？

``plain`` is what the tiny tokenizer knows: one wording a relation, and every name between spaces. The other styles draw
one of several. A vignette tells the sex (the one that the names bind it to, or either), the age only where the graph
knows the onset, and findings that are absent: ones that a rival has and the root has not (``absent``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minifleming.extras.wording.templates import (
    ADULT,
    AGES,
    ASKED,
    BACK,
    DIAGNOSIS,
    FEMALE,
    FORTH,
    FRAMES,
    GENERIC,
    JOINED,
    KINDS_ZH,
    LINKS_ZH,
    MALE,
    MALE_INHERITANCE,
    NOT_FOUND,
    PATIENTS,
    ZH_ASKED,
    ZH_FRAMES,
)
from minifleming.rods.graph import Graph
from minifleming.rods.phrases import PHRASES, known, listing, phrase
from minifleming.rods.rows import Table
from minifleming.rods.walk import Step, Walk
from minifleming.run.errors import BadInput

NAMES_ZH = Path(__file__).parents[2] / "assets" / "names_zh.tsv"
STYLES = ("plain", "varied", "vignette")
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Wording:
    """``names`` maps the graph's names to those of the language; a name that it lacks cannot be told there."""

    style: str = "plain"
    language: str = "en"
    names: Mapping[str, str] = field(default_factory=dict)

    def told(self, name: str) -> str:
        return name if self.language == "en" else self.names[name]

    def tellable(self, name: str) -> bool:
        return self.language == "en" or name in self.names

    def found(self, name: str) -> bool:
        """Can a living patient be told to have it, or not to have it, outside of the plain style?"""
        return self.style == "plain" or not re.search(NOT_FOUND, name, re.IGNORECASE)

    def option(self, names: tuple[str, ...]) -> str:
        return ("; " if self.language == "en" else "；").join(self.told(name) for name in names)

    def question(self, walk: Walk, graph: Graph, rng: np.random.Generator, both: bool = False,
                 absent: tuple[str, ...] = ()) -> str:
        """The text of a walk's question. ``both``: the root is asked for as well as the end of the chain."""
        if self.language == "zh":
            return chinese(walk, graph, rng, self, both, absent)
        if self.style == "plain":
            return plain(walk, graph, both)
        kind = graph.type_of(walk.root).lower()
        found = english_list([step.end for step in walk.evidence])
        who = patient(walk, graph, rng, absent) if self.style == "vignette" else "A patient"
        frame = FRAMES[int(rng.integers(len(FRAMES)))] if kind == "disease" else f"{a(kind)} has {{found}}."
        text = frame.format(who=who, found=found)
        if absent:
            text += f" {'The patient' if kind == 'disease' else 'It'} has no {english_list(list(absent), 'or')}."
        return f"{text} {asked(walk, kind, rng, both)}"


def plain(walk: Walk, graph: Graph, both: bool = False) -> str:
    """The findings, then what is asked for. Names stand between spaces, so that a name can be one token."""
    kind = graph.type_of(walk.root).lower()
    subject = "A patient" if kind == "disease" else f"A {kind}"
    names = listing([step.end for step in walk.evidence])
    ask, asked_for = f"Which {kind} is it", f"this {kind}"
    for step in walk.chain:  # the tiny tokenizer knows "the LINK of ..."; other graphs' relations are said as they read
        plainly = step.relation in PHRASES
        asked_for = f"the {link(step)} of {asked_for}" if plainly else f"the {noun(step, asked_for, walk)}"
    if walk.chain:
        ask = f"{ask} , and what is {asked_for}" if both else f"What is {asked_for}"
    return f"{subject} has {names} . {ask} ?"


def asked(walk: Walk, kind: str, rng: np.random.Generator, both: bool) -> str:
    """One of the wordings for the last edge, around a noun phrase for what stands before it."""
    if not walk.chain:
        forms = DIAGNOSIS if kind == "disease" else (f"Which {kind} is it?", f"What {kind} fits best?")
        return forms[int(rng.integers(len(forms)))]
    before = f"this {kind}"
    for step in walk.chain[:-1]:
        before = f"the {noun(step, before, walk)}"
    last = walk.chain[-1]
    forms = GENERIC if pin_of(last, walk) else (*ASKED.get((last.relation, last.forward), ()), *GENERIC)
    forms = [form for form in forms if not (both and form.startswith("Name"))]
    text = forms[int(rng.integers(len(forms)))].format(noun=noun(last, before, walk), of=before)
    return f"Which {kind} is it, and {text[0].lower()}{text[1:]}" if both else text


def noun(step: Step, before: str, walk: Walk) -> str:
    """What stands at the end of the step: "first-line treatment of this disease", "gene that encodes ...".

    Its pin stands behind the word that it is about: "disease (the one with fever) first treated with ...".
    """
    words = phrase(step.relation)
    own, link = (FORTH, words.link) if step.forward else (BACK, words.link_back)
    if step.relation in own:
        name, _, rest = own[step.relation].partition(" ")
    else:
        name, rest = link, "of {of}" if known(step.relation) else JOINED[step.forward]
    pin = pin_of(step, walk)
    rest = rest.replace("{of}", before)  # no format: a name may hold braces
    return f"{name} (the one with {pin}) {rest}" if pin else f"{name} {rest}"


def pin_of(step: Step, walk: Walk) -> str:
    """The finding that singles out the end of this step; '' where it needs none."""
    return next((pin.end for pin in walk.pins if pin.start == step.end), "")


def link(step: Step) -> str:
    words = phrase(step.relation)
    return words.link if step.forward else words.link_back


def english_list(names: list[str], word: str = "and") -> str:
    """"a", "a and b", "a, b and c"; "a, b; and c" where a name has a comma itself."""
    if len(names) == 1:
        return names[0]
    if any("," in name for name in names):
        return f"{'; '.join(names[:-1])}; {word} {names[-1]}"
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


def a(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


def patient(walk: Walk, graph: Graph, rng: np.random.Generator, absent: tuple[str, ...]) -> str:
    """Age and sex, as far as the graph and the names carry them, and not where they could give the answer away."""
    relations = {step.relation for step in walk.chain}
    onsets = [] if "has_onset" in relations else graph.tails(walk.root, "has_onset")
    ages = [AGES[name] for name in onsets if name in AGES]
    free = bool(ages) and bool(graph.tails(walk.root, "has_inheritance"))  # else nothing says whom it may befall
    sex = sex_of(walk, graph, rng, absent, free) if "has_inheritance" not in relations else "patient"
    if not ages:
        return f"A {PATIENTS['adult'][sex]}"
    age = int(rng.integers(ages[0][0], ages[0][1] + 1))
    article = "An" if str(age).startswith("8") or age in (11, 18) else "A"
    return f"{article} {age}-year-old {PATIENTS['adult' if age >= ADULT else 'child'][sex]}"


def sex_of(walk: Walk, graph: Graph, rng: np.random.Generator, absent: tuple[str, ...], free: bool) -> str:
    """woman or man where a name binds it, patient where the names disagree; else either, or patient if not ``free``."""
    text = " ".join([walk.root, *(step.end for step in walk.evidence), *absent])
    female, male = bool(re.search(FEMALE, text, re.I)), bool(re.search(MALE, text, re.I))
    male = male or not MALE_INHERITANCE.isdisjoint(graph.tails(walk.root, "has_inheritance"))
    draw = ("woman", "man")[int(rng.integers(2))] if free else "patient"
    return "patient" if female and male else "woman" if female else "man" if male else draw


def chinese(walk: Walk, graph: Graph, rng: np.random.Generator, wording: Wording, both: bool,
            absent: tuple[str, ...]) -> str:
    """Names stand between marks of punctuation, so that each is a word of its own."""
    told = "、".join(wording.told(step.end) for step in walk.evidence)
    text = ZH_FRAMES[int(rng.integers(len(ZH_FRAMES)))].format(found=told)
    if absent:
        text += f"无以下表现：{'、'.join(wording.told(name) for name in absent)}。"
    kind = KINDS_ZH.get(graph.type_of(walk.root), "疾病")
    before = f"该{kind}"
    for step in walk.chain:
        words = LINKS_ZH[step.relation][0 if step.forward else 1]
        before += words if words.startswith("所") else f"的{words}"
    if not walk.chain:
        return f"{text}最可能的{kind}是哪一种？"
    form = ZH_ASKED[int(rng.integers(len(ZH_ASKED)))].format(before=before)
    return f"{text}{f'最可能的{kind}是哪一种，并且' if both else ''}{form}"


def read_names(file: str, graph: Graph) -> dict[str, str]:
    """Chinese names by the graph's: a TSV with the columns name and zh; empty: those of the embedded graph.

    Two nodes may not share a name, and no name may hold a mark that parts names in a sentence. Raises BadInput.
    """
    table, names, told = Table(Path(file) if file else NAMES_ZH), {}, set()
    missing = [column for column in ("name", "zh") if column not in table.columns]
    if missing:
        raise BadInput(f"no column '{missing[0]}' in the header", table.path, 1)
    at = [table.columns.index(column) for column in ("name", "zh")]
    for line, cells in table:
        name, zh = (cells[i].strip() for i in at)
        if not name or not zh or zh in told or re.search("[、，。；：,;]", zh):
            table.refuse(line, f"'{zh}' is empty, stands there twice, or holds a mark that parts names", counted=True)
        elif name in graph.number:
            names[name] = zh
            told.add(zh)
    table.settle()
    if not names:
        raise BadInput("names no node of the graph", table.path)
    return names


def sayable(walk: Walk, wording: Wording) -> bool:
    """Can the question of this walk be told in the style and language of ``wording``?"""
    if wording.language == "en":
        told = [step.end for step in (*walk.evidence, *walk.pins)]
        return wording.style == "plain" and not walk.pins or wording.style != "plain" and all(map(wording.found, told))
    names = [step.end for step in (*walk.evidence, *walk.pins)]
    return not walk.pins and all(map(wording.tellable, names)) and all(s.relation in LINKS_ZH for s in walk.chain)
