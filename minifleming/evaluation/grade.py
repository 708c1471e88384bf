"""Grades a completion twice: strictly, for every headline, and leniently, as a diagnostic.

strict    the parser of rods/answer.py, which also pays the reward
lenient   what a careful reader would accept of the text after the reasoning:
          1. the last <answer> block is read, or the whole text if there is none;
          2. it is one label, perhaps with its own option's text, or exactly one option's text; else
          3. the last cue decides: "answer is X", "Answer: X", "\\boxed{X}", where X is a label or
             an option's text. "not X" withdraws X; "X or Y", "X?" and a label next to the text of
             another option decide nothing.

Neither reading guesses. White space, full-width forms, markdown and LaTeX wrappers are removed;
beyond that no match is fuzzy. Every pattern takes linear time, on text without runs of white space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minifleming.rods.answer import Verdict, parse_strict
from minifleming.rods.item import Item

LONGEST = 4_000  # characters that the lenient reading looks at
FOLD = {
    0x3000: " ", ord("。"): ".", ord("、"): ",", ord("’"): "'",
    0x130: "I",  # the one letter whose lower case is longer
    **dict(zip(range(0xFF01, 0xFF5F), range(0x21, 0x7F))),  # full-width forms
    **dict.fromkeys(map(ord, "*`$\u200b\u200c\u200d\u2060\ufeff")),
}
BOXED = re.compile(r"\\boxed")
LATEX = re.compile(r"\\(?:(?:text|math)[a-z]*|[()\[\]])")
THINK = re.compile(r"</?think>", re.IGNORECASE)
BLOCK = re.compile(r"<answer>([^<]{0,1000})</answer>", re.IGNORECASE)
CUE = re.compile(
    r"(?:\b(?:answer|(?:correct|right|best) (?:option|choice))\b"
    r"(?: (?:to|for) [^.,;:\n]{1,80}?(?= is\b))?|答案)"
    r"\s?(?:(?:is|(?:must|should|would) be)\b|是|为|[:=\n]|[-–—](?=\s)|(?=isn't|can))"
    r"(?:[\s:=]|[-–—](?=\s))*", re.IGNORECASE)
CLAUSE = re.compile(r"[.,;:!?\n]|\b(?:so|thus|hence|therefore)\b", re.IGNORECASE)
DOUBT = re.compile(  # in a cue's clause, before it
    r"\b(?:not?|never|nor|cannot|doubt|wrong|incorrect|unlikely|if|whether|might|could)\b|n't\b",
    re.IGNORECASE)
NOT = re.compile(r"(?:[a-z]+ly )?(?:not|never|isn't|can(?:no|')t be|不是|不)\s?", re.IGNORECASE)
# after a label: not "Benign", "C-reactive", "I'd"; but 是C选项
ALONE = r"(?![^\W\u3400-\u9fff]|[+-]|'\w)"
LABEL = re.compile(r"(?i:(?:[a-z]+ly|most|therefore|thus|option|choice|letter)\s){0,3}"
                   r"""["'(\[{]*\s?([A-Za-z])""" + ALONE + r"""(?:\s?["')\]}]+)?""")
AFTER = re.compile(r"$|[\n<,;:!]|\.(?=$|\s?[^\sa-z])|\s?(?:[(–—]|- |选项)"
                   r"|\s(?:because|since|as|given|due|which)\b")
HARD = re.compile(r"$|[\n<;:!]|\.(?=$|\s?[^\sa-z])")  # after a lower-case label, unlike "is a drug"
ANOTHER = re.compile(r"[\s(]{0,2}(?:[,/&或和]|(?:or|and)\b)\s?(?:or |and )?"
                     r"""["'(\[]*([A-Z])""" + ALONE)
CLOSED = re.compile(  # after an option's text
    r"""["')\]}]*(?:$|[\n<;!]|\.(?!\w)|,?\s(?:because|since|as)\b)""")
NEXT = re.compile(r"\.?\n[(\[]?([A-Z])[.):\]]")  # the next line of a list of options
# between a label and its text; no minus sign
SKIP = re.compile(r"""(?:[\s.,:;"'()\[\]{}]|[-–—](?=\s))*""")
END = " .\"')]}"
ROW = re.compile(r"[A-Z](?:[\s,/&+]{0,3}(?:and |or )?[A-Z]){1,25}")  # "A, B", "ABCD"
KINDS = ("ok", "lenient", "multiple", "truncated", "empty", "unparsed")


@dataclass(frozen=True, slots=True)
class Grade:
    strict: str | None  # label
    rule: str  # the strict parser's rule
    lenient: str | None
    kind: str = "unparsed"  # exactly one of KINDS


def grade(text: str, item: Item, finished: bool) -> Grade:
    """Returns both readings of a completion's text, without its end token."""
    verdict = parse_strict(text, item.labels, finished)
    # a truncated text has no complete last word
    lenient = verdict.label or parse_lenient(text if finished else text + "…", item)
    return Grade(verdict.label, verdict.rule, lenient, kind_of(text, item, verdict, lenient))


def kind_of(text: str, item: Item, verdict: Verdict, lenient: str | None) -> str:
    """Returns the first kind that holds.

    ok          the strict reading has a label
    truncated   there is no end token, whatever the text says
    empty       nothing visible follows the reasoning
    multiple    several answer blocks that differ, or several labels of which none is chosen
    lenient     the lenient reading has a label
    unparsed    the rest
    """
    if verdict.label:
        return "ok"
    if verdict.rule == "truncated":
        return "truncated"
    after = _answer_part(text)
    if not after.strip():
        return "empty"
    blocks = list(map(str.strip, BLOCK.findall(after)))
    options = _folded_options(item)
    if len({_whole(block, options) or block for block in blocks}) > 1:
        return "multiple"
    if lenient:
        return "lenient"
    return "multiple" if _several(blocks[-1] if blocks else after, options) else "unparsed"


def _several(text: str, options: dict[str, str]) -> bool:
    """Whether the text names more than one label as its answer."""
    row = ROW.fullmatch(text.rstrip(END))
    if row and set(re.findall("[A-Z]", re.sub("and|or", "", row[0]))) <= options.keys():
        return True
    low = text.lower()
    said = set()
    for at in [0, *map(re.Match.end, CUE.finditer(text))]:
        found = LABEL.match(text, at)
        another = found and found[1].upper() in options and ANOTHER.match(text, found.end())
        if another and another[1] in options:
            return True
        said.add(_read(text, low, at, options)[0] if at else _whole(text, options))
    return len(said - {None, ""}) > 1


def parse_lenient(text: str, item: Item) -> str | None:
    """Returns the label that the text clearly chooses, or None."""
    after = _answer_part(text)
    blocks = BLOCK.findall(after)
    body = blocks[-1].strip() if blocks else after
    options = _folded_options(item)
    return _whole(body, options) or _by_cue(body, options)


def fold(text: str) -> str:
    """Returns the text in ASCII forms, without markup, single-spaced; ``\\boxed`` becomes a cue."""
    text = LATEX.sub("", BOXED.sub(" answer: ", text.translate(FOLD)))
    lines = map(" ".join, map(str.split, text.splitlines()))
    return "\n".join(filter(None, lines))


def _folded_options(item: Item) -> dict[str, str]:
    """Returns label -> option text, as it is compared."""
    return {label: fold(option).lower().rstrip(END) for label, option in item.options.items()}


def _answer_part(text: str) -> str:
    """Returns the folded text after the reasoning, at most its last ``LONGEST`` characters."""
    folded = fold(_after_reasoning(text)[-LONGEST:])
    return _after_reasoning(THINK.sub(lambda tag: tag[0].lower(), folded))


def _after_reasoning(text: str) -> str:
    return text.rpartition("</think>")[2].partition("<think>")[0]


def _whole(text: str, options: dict[str, str]) -> str | None:
    """Returns the label if the text is one label, perhaps with its option, or one option's text."""
    found = LABEL.match(text)
    low = text.lower().rstrip(END)
    if found and found[1].upper() in options:
        label = found[1].upper()
        if low[SKIP.match(text, found.end()).end() :] in ("", options[label]):
            return label
    same = [label for label, option in options.items() if option == low != ""]
    return same[0] if len(same) == 1 else None


def _by_cue(text: str, options: dict[str, str]) -> str | None:
    """Returns the label of the last readable cue, unless it is withdrawn."""
    settled = None
    low = text.lower()
    for cue in CUE.finditer(text):
        negated = NOT.match(text, cue.end())
        label, sure = _read(text, low, cue.end(), options)
        if label is None and negated:
            label, _ = _read(text, low, negated.end(), options)
            sure = False
        clause = CLAUSE.split(text[max(0, cue.start() - 100) : cue.start()])[-1]
        if not sure or DOUBT.search(clause):
            settled = None if label in (settled, "") else settled
        else:
            settled = label
    return settled


def _read(text: str, low: str, at: int, options: dict[str, str]) -> tuple[str | None, bool]:
    """Returns the label at ``at`` and whether it is sure; None for no label, "" for several."""
    option = _option_at(low, at, options)
    if option is not None:
        return option, bool(option)
    found = LABEL.match(text, at)
    label = found[1].upper() if found else ""
    if label not in options:
        return None, False
    another = ANOTHER.match(text, found.end())
    end = SKIP.match(text, found.end()).end()
    if another and another[1] in options:
        return "", False
    following = _option_at(low, end, options, label)
    if following == label:
        listed = NEXT.match(text, end + len(options[label]))
        return label, not (listed and ord(listed[1]) == ord(label) + 1)
    after = AFTER if found[1].isupper() else HARD
    clear = found[0].endswith("}") or after.match(text, found.end())
    return label, following is None and bool(clear)


def _option_at(low: str, at: int, options: dict[str, str], prefer: str = "") -> str | None:
    """Returns the label of the longest option that is at ``at``; "" for two, None for none."""
    longest = 0
    there: list[str] = []
    for label, option in options.items():
        if not low.startswith(option, at) or not option or option.upper() in options:
            continue
        if len(option) < longest or not CLOSED.match(low, at + len(option)):
            continue
        if len(option) > longest:
            longest = len(option)
            there = []
        there.append(label)
    if not there:
        return None
    if prefer in there:
        return prefer
    return there[0] if len(there) == 1 else ""
