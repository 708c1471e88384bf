"""The verification of a trace (§1 item 2, §3.2): each check is a function of text, and each verdict is recorded.

    format        think block, answer block, and nothing else (rods/answer.py)
    answer        the label is the item's
    leak          no words of someone who was told the answer (leaks.txt)
    brevity       at most ``longest`` characters
    numbers       every equation in it is right; units.py
    units         no number of the question comes back with another unit of its kind; units.py
    assumptions   a quantity that is neither in the question nor computed is said to be an assumption or a norm
    guidelines    no snippet that applies is contradicted (guidelines.py)
    hops          graph items: every hop that can be read is an edge, the last one at the answer (rods/reasoning.py)
    resolved      the reasoning alone, its labels struck out, leads to the answer

A check that does not apply is left out. The last asks a teacher or the graph, so it comes last and only for those that
passed the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minifleming.cold_start.protocol import Teacher
from minifleming.cold_start.trace import Trace
from minifleming.extras.numbers.guidelines import Snippet, agrees
from minifleming.extras.numbers.units import assumed, equations_hold, units_kept
from minifleming.rods.answer import parse_strict
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.reasoning import support

LEAKS = Path(__file__).with_name("leaks.txt")
NAMED = r"(?i:vitamin|hepatitis|influenza|type|group|class|factor|grade|stage|category|ha?emophilia|protein|panel)s?"
KEPT = rf"\b{NAMED} [A-Z]\b|\b(?i:type|group|class|grade|stage|category) \([A-Z]\)"  # of these, the letter is a name
ONE = r"(?:\(?[A-Z]\)?(?![\w-])(?! (?:cell|lymphocyte|virus|symptom)))"
LABEL = re.compile("|".join([
    rf"(?P<kept>{KEPT})", r"[(\[（][A-Z][)\]）]", r"\*\*[A-Z]\*\*",
    rf"\b(?:[Oo]ption|[Cc]hoice)s? {ONE}(?:(?:, (?:and |or )?| and | or |/){ONE})*",
    rf"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?: (?:is|must be|should be|would be|has to be))?:? ?{ONE}",
    rf"\b(?:[Cc]hoose|[Pp]ick|[Ss]elect) {ONE}",
    rf"\b{ONE} (?:is|was|must be) (?:the )?(?:only |most )?(?:correct|right|best|wrong|incorrect|false|true|out)\b",
    r"^[ \t]*[A-Z][.):](?=\s)",
    r"(?:选项?|答案(?:应?[是为])?|应选)[：: ]?[(（]?[A-Z][)）]?(?![A-Za-z0-9-])",
    r"(?<![A-Za-z0-9-])[A-Z] ?(?:选?项|正确|错误)",
]), re.MULTILINE)


@dataclass(frozen=True)
class Checks:
    """What to check with; a check that lacks what it needs is left out.

    ``judge`` resolves the traces of all teachers; without one, each teacher its own. ``resolve``: at all.
    """

    graph: Graph | None = None
    judge: Teacher | None = None
    resolve: bool = True
    guidelines: tuple[Snippet, ...] = ()
    longest: int = 4000

    def __call__(self, items: Sequence[Item], traces: Sequence[Trace], teacher: Teacher | None = None) -> None:
        """Fill ``checks`` of every trace, all of one teacher."""
        for item, trace in zip(items, traces, strict=True):
            trace.checks = self.of_text(item, trace)
        judge = (self.judge or teacher) if self.resolve else None
        asked = [(item, trace) for item, trace in zip(items, traces) if trace.verified]
        if judge is None or not asked:
            return
        found = judge.resolve([item for item, _ in asked], [blinded(trace.reasoning) for _, trace in asked])
        for (item, trace), label in zip(asked, found, strict=True):
            trace.checks["resolved"] = label == item.answer

    def of_text(self, item: Item, trace: Trace) -> dict[str, bool]:
        verdict, text = parse_strict(trace.completion, item.labels), trace.reasoning
        known = "\n".join((item.question, *item.options.values()))
        found = {"format": verdict.formatted, "answer": trace.answer == item.answer, "leak": not leaks(text),
                 "brevity": len(text) <= self.longest, "numbers": equations_hold(text),
                 "units": units_kept(text, known), "assumptions": assumed(text, known),
                 "guidelines": agrees(text, known, self.guidelines)}
        if self.graph and item.path and item.provenance.get("root") in self.graph.number:
            carried = support(text, item.nodes(item.answer)[-1], self.graph)
            found["hops"] = None if carried == "unread" else carried == "chain"
        return {name: passed for name, passed in found.items() if passed is not None}


@cache
def leak_pattern() -> re.Pattern:
    lines = LEAKS.read_text(encoding="utf-8").splitlines()
    return re.compile("|".join(line for line in lines if line and not line.startswith("#")), re.IGNORECASE)


def leaks(text: str) -> bool:
    """Does the reasoning speak of an answer that it was given?"""
    return leak_pattern().search(text) is not None


def blinded(text: str) -> str:
    """The reasoning without the labels that it names: "so colchicine (B)" -> "so colchicine  "

    Letters that belong to a name stay ("vitamin B", "Factor V", "group (A)"), and so do bare ones.
    """
    return LABEL.sub(lambda found: found["kept"] or " ", text)
