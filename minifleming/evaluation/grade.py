"""Grading: strict for every headline, lenient beside it as a diagnostic. Neither ever guesses.

strict    the parser of rods/answer.py: the same that pays the reward
lenient   what a careful reader would accept of what stands after the reasoning:
          1. the last <answer> block, if there is one; else all of the text is read;
          2. it is one label, perhaps wrapped and followed by its own option's text, or one option's text; else
          3. the last cue settles it: "answer is X", "Answer: X", "\\boxed{X}", where X is a label or an option's
             text. "not X" withdraws X; "X or Y", "X?" and a label beside another option's text settle nothing.

White space, full-width forms, markdown and LaTeX wrappers are folded away; beyond that nothing is fuzzy. Every
pattern is linear in the text, which has no runs of white space when it is matched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minifleming.rods.answer import Verdict, parse_strict
from minifleming.rods.item import Item

LONGEST = 4_000  # characters that the lenient reading looks at
FOLD = {0x3000: " ", **{0xFEE0 + c: c for c in range(0x21, 0x7F)}, ord("。"): ".", ord("、"): ",", ord("’"): "'",
        0x130: "I",  # the one letter whose lower case is longer
        **dict.fromkeys(map(ord, "*`$\u200b\u200c\u200d\u2060\ufeff"))}
BOXED, LATEX = re.compile(r"\\boxed"), re.compile(r"\\(?:(?:text|math)[a-z]*|[()\[\]])")
THINK = re.compile(r"</?think>", re.IGNORECASE)
BLOCK = re.compile(r"<answer>([^<]{0,1000})</answer>", re.IGNORECASE)
CUE = re.compile(
    r"(?:\b(?:answer|(?:correct|right|best) (?:option|choice))\b(?: (?:to|for) [^.,;:\n]{1,80}?(?= is\b))?|答案)"
    r"\s?(?:(?:is|(?:must|should|would) be)\b|是|为|[:=\n]|[-–—](?=\s)|(?=isn't|can))"
    r"(?:[\s:=]|[-–—](?=\s))*", re.IGNORECASE)
CLAUSE = re.compile(r"[.,;:!?\n]|\b(?:so|thus|hence|therefore)\b", re.IGNORECASE)
DOUBT = re.compile(r"\b(?:not?|never|nor|cannot|doubt|wrong|incorrect|unlikely|if|whether|might|could)\b|n't\b",
                   re.IGNORECASE)  # in a cue's clause, before it
NOT = re.compile(r"(?:[a-z]+ly )?(?:not|never|isn't|can(?:no|')t be|不是|不)\s?", re.IGNORECASE)
ALONE = r"(?![^\W\u3400-\u9fff]|[+-]|'\w)"  # after a label: not "Benign", "C-reactive", "I'd"; but 是C选项
LABEL = re.compile(r"(?i:(?:[a-z]+ly|most|therefore|thus|option|choice|letter)\s){0,3}"
                   r"""["'(\[{]*\s?([A-Za-z])""" + ALONE + r"""(?:\s?["')\]}]+)?""")
AFTER = re.compile(r"$|[\n<,;:!]|\.(?=$|\s?[^\sa-z])|\s?(?:[(–—]|- |选项)|\s(?:because|since|as|given|due|which)\b")
HARD = re.compile(r"$|[\n<;:!]|\.(?=$|\s?[^\sa-z])")  # after a lower-case label: "answer is a drug" has none
ANOTHER = re.compile(r"[\s(]{0,2}(?:[,/&或和]|(?:or|and)\b)\s?(?:or |and )?" r"""["'(\[]*([A-Z])""" + ALONE)
CLOSED = re.compile(r"""["')\]}]*(?:$|[\n<;!]|\.(?!\w)|,?\s(?:because|since|as)\b)""")  # after an option's text
NEXT = re.compile(r"\.?\n[(\[]?([A-Z])[.):\]]")  # the next line of a list of options
SKIP = re.compile(r"""(?:[\s.,:;"'()\[\]{}]|[-–—](?=\s))*""")  # between a label and its text; no minus sign
END = " .\"')]}"
ROW = re.compile(r"[A-Z](?:[\s,/&+]{0,3}(?:and |or )?[A-Z]){1,25}")  # "A, B", "ABCD"
KINDS = ("ok", "lenient", "multiple", "truncated", "empty", "unparsed")


@dataclass(frozen=True, slots=True)
class Grade:
    strict: str | None  # label
    rule: str  # the strict parser's rule
    lenient: str | None
    kind: str = "unparsed"  # one of KINDS: each text is of exactly one


def grade(text: str, item: Item, finished: bool) -> Grade:
    """Both readings of a completion's text (before its end token)."""
    verdict = parse_strict(text, item.labels, finished)
    lenient = parse_lenient(text if finished else text + "…", item)  # where it was cut off, nothing is complete
    lenient = verdict.label or lenient
    return Grade(verdict.label, verdict.rule, lenient, kind_of(text, item, verdict, lenient))


def kind_of(text: str, item: Item, verdict: Verdict, lenient: str | None) -> str:
    """What became of a text: the first that holds.

    ok          the strict reading has a label
    truncated   there is no end token, whatever the text says
    empty       nothing visible stands after the reasoning
    multiple    several answer blocks that differ, or more than one label or none of them settled on
    lenient     the lenient reading has a label
    unparsed    the rest
    """
    if verdict.label or verdict.rule == "truncated":
        return "ok" if verdict.label else "truncated"
    after = _answer_part(text)
    if not after.strip():
        return "empty"
    blocks = [block.strip() for block in BLOCK.findall(after)]
    options = {label: fold(option).lower().rstrip(END) for label, option in item.options.items()}
    if len({_whole(block, options) or block for block in blocks}) > 1:
        return "multiple"
    if lenient:
        return "lenient"
    return "multiple" if _several(blocks[-1] if blocks else after, options) else "unparsed"


def _several(text: str, options: dict[str, str]) -> bool:
    """Does it name more than one label as its answer?"""
    row = ROW.fullmatch(text.rstrip(END))
    if row and set(re.findall("[A-Z]", re.sub("and|or", "", row[0]))) <= options.keys():
        return True
    low, said, places = text.lower(), set(), [0, *(cue.end() for cue in CUE.finditer(text))]
    for at in places:
        found = LABEL.match(text, at)
        another = found and found[1].upper() in options and ANOTHER.match(text, found.end())
        if another and another[1] in options:
            return True
        said.add(_read(text, low, at, options)[0] if at else _whole(text, options))
    return len(said - {None, ""}) > 1


def parse_lenient(text: str, item: Item) -> str | None:
    """A label that the text clearly settles on, or None."""
    after = _answer_part(text)
    blocks = BLOCK.findall(after)
    body = blocks[-1].strip() if blocks else after
    options = {label: fold(option).lower().rstrip(END) for label, option in item.options.items()}
    return _whole(body, options) or _by_cue(body, options)


def fold(text: str) -> str:
    """Full-width forms as ASCII, no markup, single white space; ``\\boxed`` becomes the cue that it is."""
    text = LATEX.sub("", BOXED.sub(" answer: ", text.translate(FOLD)))
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))


def _answer_part(text: str) -> str:
    """What stands after the reasoning, folded; at most its last ``LONGEST`` characters."""
    return _after_reasoning(THINK.sub(lambda tag: tag[0].lower(), fold(_after_reasoning(text)[-LONGEST:])))


def _after_reasoning(text: str) -> str:
    return text.rpartition("</think>")[2].partition("<think>")[0]


def _whole(text: str, options: dict[str, str]) -> str | None:
    """The text is one label, perhaps with its option's text, or exactly one option's text."""
    found, low = LABEL.match(text), text.lower().rstrip(END)
    if found and found[1].upper() in options:
        label = found[1].upper()
        if low[SKIP.match(text, found.end()).end() :] in ("", options[label]):
            return label
    same = [label for label, option in options.items() if option == low != ""]
    return same[0] if len(same) == 1 else None


def _by_cue(text: str, options: dict[str, str]) -> str | None:
    """What the last readable cue says, unless it is withdrawn."""
    settled, low = None, text.lower()
    for cue in CUE.finditer(text):
        at, negated = cue.end(), NOT.match(text, cue.end())
        label, sure = _read(text, low, at, options)
        if label is None and negated:
            label, sure = _read(text, low, negated.end(), options)[0], False
        if not sure or DOUBT.search(CLAUSE.split(text[max(0, cue.start() - 100) : cue.start()])[-1]):
            settled = None if label in (settled, "") else settled
        else:
            settled = label
    return settled


def _read(text: str, low: str, at: int, options: dict[str, str]) -> tuple[str | None, bool]:
    """The label said at ``at`` and whether it is sure; (None, False) for none, ("", False) for more than one."""
    option = _option_at(low, at, options)
    if option is not None:
        return option, bool(option)
    found = LABEL.match(text, at)
    label = found[1].upper() if found else ""
    if label not in options:
        return None, False
    another, end = ANOTHER.match(text, found.end()), SKIP.match(text, found.end()).end()
    if another and another[1] in options:
        return "", False
    beside = _option_at(low, end, options, label)
    if beside == label:
        listed = NEXT.match(text, end + len(options[label]))
        return label, not (listed and ord(listed[1]) == ord(label) + 1)
    clear = found[0].endswith("}") or (AFTER if found[1].isupper() else HARD).match(text, found.end())
    return label, beside is None and bool(clear)


def _option_at(low: str, at: int, options: dict[str, str], prefer: str = "") -> str | None:
    """The label of the longest option whose whole text stands at ``at``; '' if two have it, None if none has."""
    there = [label for label, option in options.items()
             if low.startswith(option, at) and option and option.upper() not in options
             and CLOSED.match(low, at + len(option))]
    longest = max((len(options[label]) for label in there), default=0)
    there = [label for label in there if len(options[label]) == longest]
    return None if not there else prefer if prefer in there else there[0] if len(there) == 1 else ""
