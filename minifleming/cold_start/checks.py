"""Verification of a trace (§1 item 2, §3.2): named checks of its text, and a verdict for each.

    format        think block, answer block, nothing else (rods/answer.py)
    answer        the label is the item's
    leak          no phrase of leaks.txt: the reasoning does not mention that the answer was given
    brevity       at most ``max_chars`` characters
    (extra)       checks passed in, such as those of extras/numbers: calculations, units, guidelines
    hops          graph items: every stated hop is an edge, the last one touches the answer
    resolved      the reasoning without its labels leads to the answer

A check that does not apply is left out. `resolved` queries a teacher, so it runs last and only on
traces that passed all other checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minifleming.cold_start.oracle import has_path
from minifleming.cold_start.trace import Teacher, Trace
from minifleming.rods.answer import parse_strict
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.reasoning import support

# (reasoning, question and options) -> name of the check -> passed, or None if it does not apply
ExtraCheck = Callable[[str, str], dict[str, bool | None]]

LEAKS = Path(__file__).with_name("leaks.txt")
PHRASES = re.findall(r"^[^#\n].*", LEAKS.read_text(encoding="utf-8"), re.MULTILINE)
LEAK = re.compile("|".join(PHRASES), re.IGNORECASE)
NAMED = (
    r"(?i:vitamin|hepatitis|influenza|type|group|class|factor|grade|stage|category|ha?emophilia"
    r"|protein|panel)s?"
)
NAME = rf"\b{NAMED} [A-Z]\b|\b(?i:type|group|class|grade|stage|category) \([A-Z]\)"
ONE = r"(?:\(?[A-Z]\)?(?![\w-])(?! (?:cell|lymphocyte|virus|symptom)))"
LABEL_PATTERNS = [
    rf"(?P<name>{NAME})",  # a letter that belongs to a name is no label
    r"[(\[（][A-Z][)\]）]",
    r"\*\*[A-Z]\*\*",
    rf"\b(?:[Oo]ption|[Cc]hoice)s? {ONE}(?:(?:, (?:and |or )?| and | or |/){ONE})*",
    r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)"
    rf"(?: (?:is|must be|should be|would be|has to be))?:? ?{ONE}",
    rf"\b(?:[Cc]hoose|[Pp]ick|[Ss]elect) {ONE}",
    rf"\b{ONE} (?:is|was|must be) (?:the )?(?:only |most )?"
    r"(?:correct|right|best|wrong|incorrect|false|true|out)\b",
    r"^[ \t]*[A-Z][.):](?=\s)",
    r"(?:选项?|答案(?:应?[是为])?|应选)[：: ]?[(（]?[A-Z][)）]?(?![A-Za-z0-9-])",
    r"(?<![A-Za-z0-9-])[A-Z] ?(?:选?项|正确|错误)",
]
LABEL = re.compile("|".join(LABEL_PATTERNS), re.MULTILINE)


@dataclass(frozen=True)
class Checks:
    """Checks traces. A check whose requirements are missing is left out.

    graph      for `hops`
    judge      the teacher that resolves every trace; None: each teacher resolves its own traces
    resolve    False: no `resolved` check
    extra      further checks of the text
    max_chars  for `brevity`
    """

    graph: Graph | None = None
    judge: Teacher | None = None
    resolve: bool = True
    extra: Sequence[ExtraCheck] = ()
    max_chars: int = 4000

    def __call__(self, items: Sequence[Item], traces: Sequence[Trace],
                 teacher: Teacher | None = None) -> None:
        """Sets ``checks`` of every trace; all traces are from one teacher."""
        passed = []
        for item, trace in zip(items, traces, strict=True):
            trace.checks = self.check_text(item, trace)
            if trace.verified:
                passed.append((item, trace))
        judge = self.judge or teacher
        if not self.resolve or judge is None or not passed:
            return
        blind = [without_labels(trace.reasoning) for _, trace in passed]
        labels = judge.resolve([item for item, _ in passed], blind)
        for (item, trace), label in zip(passed, labels, strict=True):
            trace.checks["resolved"] = label == item.answer

    def check_text(self, item: Item, trace: Trace) -> dict[str, bool]:
        """Returns the verdicts of all checks that need no teacher."""
        text = trace.reasoning
        known = "\n".join((item.question, *item.options.values()))
        verdicts: dict[str, bool | None] = {
            "format": parse_strict(trace.completion, item.labels).formatted,
            "answer": trace.answer == item.answer,
            "leak": not leaks(text),
            "brevity": len(text) <= self.max_chars,
        }
        for check in self.extra:
            verdicts |= check(text, known)
        verdicts["hops"] = self.check_hops(item, text)
        return {name: passed for name, passed in verdicts.items() if passed is not None}

    def check_hops(self, item: Item, text: str) -> bool | None:
        """Returns None if the item is not from this graph, or no hop could be read."""
        if not self.graph or not has_path(item, self.graph):
            return None
        outcome = support(text, item.nodes(item.answer)[-1], self.graph)
        return None if outcome == "unread" else outcome == "chain"


def leaks(text: str) -> bool:
    """True if the reasoning mentions that its answer was given."""
    return LEAK.search(text) is not None


def without_labels(text: str) -> str:
    """Returns the reasoning with blank option labels: "so colchicine (B)" -> "so colchicine  "

    Letters of a name stay ("vitamin B", "Factor V", "group (A)"), and so do bare letters.
    """
    return LABEL.sub(lambda match: match["name"] or " ", text)
