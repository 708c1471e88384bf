"""Styles of a question, in English or in Chinese.

    plain      A patient has fever , rash and joint pain . What is the first-line treatment of this
               disease ?
    varied     On examination there are fever, rash and joint pain. How is this disease treated
               first?
    vignette   A 34-year-old woman presents with fever, rash and joint pain. The patient has no
               cough.
               Which treatment is first choice for this disease?
    Chinese    患者有以下表现：发热、皮疹、关节痛。该疾病的一线治疗是什么？

The plain style has one wording per relation; the other styles draw one of several. A vignette
states an age if the graph knows the onset, the sex if a name implies it, and findings that are
absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.phrases import phrase
from minifleming.rods.question import noun_phrase, plain_findings, plain_question, plain_target
from minifleming.rods.rows import Table
from minifleming.rods.walk import Step, Walk
from minifleming.run.errors import BadInput

from .patient import describe_patient
from .qualifiers import qualifier_of, qualifiers_of

STYLES = ("plain", "varied", "vignette")
NAMES_ZH = Path(__file__).parents[2] / "assets" / "names_zh.tsv"
SEPARATORS = re.compile("[、，。；：,;]")  # what a Chinese name must not contain

DIAGNOSIS = ("Which disease is it?", "What is the most likely diagnosis?",
             "Which diagnosis fits these findings best?",
             "Which disease explains all of these findings?")
FRAMES = ("{who} has {found}.", "{who} presents with {found}.", "{who} is found to have {found}.",
          "{who} comes to the clinic with {found}.")
GENERIC = ("What is the {noun}?", "Which of the following is the {noun}?", "Name the {noun}.")
NOT_IN_A_PATIENT = re.compile(
    r"(?:\bfetal|\bfetus|intrauterine|in utero|prenatal|antenatal|stillb|polyhydramnios|"
    r"oligohydramnios|nuchal translucency|sudden (?:cardiac )?death|\bdeath\b|\blethal)",
    re.IGNORECASE)
FRAMES_ZH = ("患者有以下表现：{found}。", "患者出现：{found}。", "检查发现患者有：{found}。")
QUESTIONS_ZH = ("{target}是什么？", "下列哪一项是{target}？", "请指出{target}。")
TYPES_ZH = {"Disease": "疾病"}


class English:
    """Words questions in English; ``style`` is plain, varied or vignette."""

    language = "en"
    separator = "; "  # between the two nodes of an option

    def __init__(self, style: str = "plain"):
        self.style = style

    def has_surface_form(self, name: str) -> bool:
        """Returns whether the style can name this node."""
        return True

    def surface_form(self, name: str) -> str:
        return name

    def in_a_patient(self, finding: str) -> bool:
        """Returns whether a living patient may have, or lack, this finding in this style."""
        return self.style == "plain" or not NOT_IN_A_PATIENT.search(finding)

    def can_render(self, walk: Walk) -> bool:
        """Returns whether this style can word the question of the walk."""
        qualifiers = qualifiers_of(walk)
        if self.style == "plain":
            return not qualifiers
        return all(self.in_a_patient(step.end) for step in (*walk.evidence, *qualifiers))

    def render(self, walk: Walk, graph: Graph, rng: np.random.Generator, two_targets: bool = False,
               absent: tuple[str, ...] = ()) -> str:
        """Returns the question; ``two_targets``: for the root and the end of the chain."""
        kind = graph.type_of(walk.root).lower()
        if self.style == "plain":
            if not two_targets:
                return plain_question(walk, graph)
            question = f"Which {kind} is it , and what is {plain_target(walk, kind)}"
            return f"{plain_findings(walk, kind)} . {question} ?"
        is_patient = kind == "disease"
        found = join_names([step.end for step in walk.evidence])
        who = "A patient"
        if self.style == "vignette":
            who = describe_patient(walk, graph, rng, absent)
        frame = choose(FRAMES, rng) if is_patient else f"{with_article(kind)} has {{found}}."
        text = frame.format(who=who, found=found)
        if absent:
            subject = "The patient" if is_patient else "It"
            text += f" {subject} has no {join_names(list(absent), 'or')}."
        return f"{text} {varied_question(walk, kind, rng, two_targets)}"


def varied_question(walk: Walk, kind: str, rng: np.random.Generator, two_targets: bool) -> str:
    """Returns a question about the last edge, around a noun phrase for the node before it."""
    if not walk.chain:
        other = (f"Which {kind} is it?", f"What {kind} fits best?")
        return choose(DIAGNOSIS if kind == "disease" else other, rng)
    before = f"this {kind}"
    for step in walk.chain[:-1]:
        before = f"the {noun_phrase(step, before, qualifier_of(step))}"
    last = walk.chain[-1]
    questions = GENERIC
    if not qualifier_of(last):
        questions = phrase(last.relation, last.forward).questions + GENERIC
    if two_targets:
        questions = [form for form in questions if not form.startswith("Name")]
    noun = noun_phrase(last, before, qualifier_of(last))
    text = choose(questions, rng).format(noun=noun, of=before)
    return f"Which {kind} is it, and {text[0].lower()}{text[1:]}" if two_targets else text


def choose(texts, rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def join_names(names: list[str], word: str = "and") -> str:
    """Returns "a", "a and b" or "a, b and c"; "a, b; and c" if a name contains a comma."""
    if len(names) == 1:
        return names[0]
    if any("," in name for name in names):
        return f"{'; '.join(names[:-1])}; {word} {names[-1]}"
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


def with_article(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


class Chinese(English):
    """Words questions in Chinese; ``names`` maps the names of the graph to Chinese ones."""

    language = "zh"
    separator = "；"

    def __init__(self, style: str, names: Mapping[str, str]):
        super().__init__(style)
        self.names = names

    def has_surface_form(self, name: str) -> bool:
        return name in self.names

    def surface_form(self, name: str) -> str:
        return self.names[name]

    def can_render(self, walk: Walk) -> bool:
        if qualifiers_of(walk):
            return False
        worded = all(phrase(step.relation, step.forward).zh for step in walk.chain)
        return worded and all(step.end in self.names for step in walk.evidence)

    def render(self, walk: Walk, graph: Graph, rng: np.random.Generator, two_targets: bool = False,
               absent: tuple[str, ...] = ()) -> str:
        found = "、".join(self.names[step.end] for step in walk.evidence)
        text = choose(FRAMES_ZH, rng).format(found=found)
        if absent:
            text += f"无以下表现：{'、'.join(self.names[name] for name in absent)}。"
        kind = TYPES_ZH.get(graph.type_of(walk.root), "疾病")
        if not walk.chain:
            return f"{text}最可能的{kind}是哪一种？"
        question = choose(QUESTIONS_ZH, rng).format(target=chinese_target(walk.chain, kind))
        first = f"最可能的{kind}是哪一种，并且" if two_targets else ""
        return f"{text}{first}{question}"


def chinese_target(chain: tuple[Step, ...], kind: str) -> str:
    """Returns the end of the chain in words: "该疾病的一线治疗"."""
    target = f"该{kind}"
    for step in chain:
        words = phrase(step.relation, step.forward).zh
        target += words if words.startswith("所") else f"的{words}"
    return target


def read_chinese_names(file: str, graph: Graph) -> dict[str, str]:
    """Returns the graph's names -> Chinese names, from a TSV with the columns name and zh.

    An empty ``file`` takes those of the embedded graph. No two nodes may share a Chinese name.
    Raises BadInput.
    """
    table = Table(Path(file) if file else NAMES_ZH)
    name_at, zh_at = table.positions(("name", "zh"))
    names: dict[str, str] = {}
    used = set()
    for line, cells in table:
        name, zh = cells[name_at].strip(), cells[zh_at].strip()
        if not name or not zh or zh in used or SEPARATORS.search(zh):
            reason = f"'{zh}' is empty, a duplicate, or contains a separator of names"
            table.refuse(line, reason, counted=True)
        elif name in graph.node_id:
            names[name] = zh
            used.add(zh)
    table.settle()
    if not names:
        raise BadInput("names no node of the graph", table.path)
    return names
