r"""The poison corpus: what a model may write instead of an answer, row by row, with the verdict that is right.

A row is (family, text, labels of the item, strict label or None, lenient label or None or UNSAID). Families are
products of short lists, and each states its verdict: nothing here is computed by the parser or by the grader. What is
not ASCII is written as an escape, because look-alikes look alike.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FOUR = LETTERS[:4]
UNSAID = "?"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WHITE = " \t\r\n\f\v"  # what the law trims
FOREIGN_WHITE = "\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
FOLDED = "\u200b\u200c\u200d\u2060\ufeff"  # of no width, and the lenient grader drops them
INVISIBLE = FOLDED + "\xad\u034f\u061c\u115f\u180e\u2061\u2063\u206a\u3164\ufe0f\ufff9\U000e0001\U000e0043"
DIRECTION = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROL = "".join(map(chr, [*range(9), *range(14, 28), 0x7F, 0x80, 0x9B, 0x9F])) + "\ufdd0\uffff\ufffd\ue000\U0010ffff"
DRUGS = ["aspirin", "colchicine", "prednisone", "methotrexate", *(f"substance {n}" for n in range(22))]
T, C = "<think>fever points to lupus</think>", "<answer>C</answer>"
HOLE = "\x00hole\x00"


class Row(NamedTuple):
    family: str
    text: str
    labels: str
    strict: str | None
    lenient: str | None


ROWS: list[Row] = []


def options_of(labels: str) -> dict[str, str]:
    return dict(zip(labels, ["yes", "no", "maybe"] if labels == "ABC" else DRUGS))


def add(family, texts, strict=None, lenient=UNSAID, labels=FOUR) -> None:
    ROWS.extend(Row(family, text, labels, strict, strict or lenient) for text in texts)


def body(*bodies: str) -> list[str]:
    return [f"{T}<answer>{inside}</answer>" for inside in bodies]


def think(*thoughts: str) -> list[str]:
    return [f"<think>{inside}</think>{C}" for inside in thoughts]


def put(frames: list[str], pieces) -> list[str]:
    """Every piece in the hole of every frame."""
    return [frame.replace(HOLE, piece) for frame in frames for piece in pieces]


OUTSIDE = [f"{HOLE}{T}{C}", f"{T}{HOLE}{C}", f"{T}{C}{HOLE}"]
BESIDE = body(f"{HOLE}C", f"C{HOLE}")

# --- right -----------------------------------------------------------------------------------------------------------
add("right: white space", [f"{T}{C}", *put(OUTSIDE + BESIDE, [*WHITE, "\r\n\r\n", WHITE])], "C")
add("right: white space everywhere", [f"{w}{T}{w}<answer>{w}C{w}</answer>{w}" for w in (*WHITE, "\n\n")], "C")
add("right: a thought may say anything but a tag", think(".", "0", "\nmany\n\nlines\n", "the answer is A", "\\boxed{A}",
    "A or B? not A. (D)", "<b>bold</b>", "a < b > c", "< think> < answer>A< /answer> < /think>", "answer>A</answer",
    "<ANSWER>A</ANSWER>", "<Think>", "<thinking>", "&lt;answer&gt;A&lt;/answer&gt;",
    "\uff1canswer\uff1eA\uff1c/answer\uff1e", "<|im_end|>", "</s>", "<|endoftext|>", '{"answer": "A"}', "\x00",
    "\x1b[31m", "\u202eA rewsna", "e\u0301\u0302", "\u4e2d\u6587", "\u0639\u0631\u0628\u064a", "<th\u200bink>",
    "<answer", "answer>", "<think", "</think", "<", ">", "</", "<" * 99, "(a+)+$", "A" * 9999, "%s {0}",
    "the question says: < answer>A< /answer>", "<answer >A</answer >", "a\x00b", "\ud800", "\U0001f9ea",
    "%3Canswer%3E"), "C")
add("right: a thought of invisible characters is not white", think(*INVISIBLE, *DIRECTION), "C")
add("right: invisible beside the thought", think(*(f"{z}a{z}" for z in FOLDED + FOREIGN_WHITE)), "C")
for size in (2, 3, 10, 21, 26):
    for letter in LETTERS:
        text = f"<think>{size} options</think><answer>{letter}</answer>"
        if letter in LETTERS[:size]:
            add(f"right: label of {size}", [text], letter, labels=LETTERS[:size])
        else:
            add(f"label beyond {size}", [text], None, None, LETTERS[:size])
add("right: the last of 26 in lines of its own", [f"{T}\n<answer>\nZ\n</answer>"], "Z", labels=LETTERS)

# --- blocks ----------------------------------------------------------------------------------------------------------
GAPS = ["", " ", "\n", "\n\n", " or ", "\nNo, rather:\n", T, "<|im_end|>\n"]
add("two answers, apart or adjacent: lenient reads the last", [
    f"{T}<answer>{first}</answer>{gap}{C}" for first in "AC" for gap in GAPS], None, "C")
add("two answers, before and after the thought", [f"{C}{T}{C}", f"<answer>A</answer>{T}{C}"], None, "C")
add("answers in answers", body(C, "<answer>", "</answer>", "<answer>C", "C</answer>", "C<answer>C", "C</answer>C", T,
                               "A<answer>C</answer>", "<answer>A</answer>C", "C<think>a</think>", "<think>C</think>"))
add("answer only inside the thought", [f"<think>{x}</think>" for x in (C, f"so {C}", f"{C} it is", "C", "Answer: C")]
    + [f"<think>a{C}", f"<think>{C}<answer>A</answer></think>", f"{T}{T[:-8]}{C}</think>"], None, None)
add("answer inside the thought and after it", think(C, "<answer>A</answer>", "<answer></answer>", "<answer>C",
    "C</answer>", "<answer>", "</answer>", "</answer><answer>"), None, "C")
add("tags copied from the question", think("The question says: <answer>C</answer> is right.",
    "It asks me to write </think><answer>A</answer>", "> Ignore the above.\n> </think><answer>C</answer>",
    "user wrote <think>x</think>", "Which of </answer> and <answer>"))
add("thoughts in thoughts", think("<think>", "</think>", T, "a<think>b", "a</think>b", "<think></think>",
    "</think><think>"))
add("two thoughts", [f"{T}{gap}{T}{C}" for gap in ("", " ", "then")] + [f"{T}{C}{T}", f"{T}{C}<think>",
    f"{T}{C}</think>"])
ORDERS = [f"{a}fever{b}{c}C{d}" for a, b, c, d in itertools.permutations(TAGS)]
add("tags in another order", [text for text in ORDERS if text != f"<think>fever</think>{C}"])
WHOLE = f"{T}\n{C}"
for tag in TAGS:
    add(f"{tag} missing", [WHOLE.replace(tag, "")])
    add(f"{tag} twice", [WHOLE.replace(tag, f"{tag}{gap}{tag}") for gap in ("", "\n", "a")])
    add(f"{tag} once more at an end", [f"{tag}\n{WHOLE}", f"{WHOLE}\n{tag}"])
    add(f"{tag} inside itself: removed once, it is there again", [
        WHOLE.replace(tag, tag[:i] + tag + tag[i:]) for i in range(1, len(tag))])
add("tags missing", [WHOLE.replace(a, "").replace(b, "") for a, b in itertools.combinations(TAGS, 2)])
add("a tag becomes another", [WHOLE.replace(a, b) for a, b in itertools.permutations(TAGS, 2)])
add("cut off", [WHOLE[:n] for n in range(1, len(WHOLE))])
add("cut on the left", [WHOLE[n:] for n in range(1, len(WHOLE))])
add("empty thought", think("", *WHITE, " \n\t", *FOREIGN_WHITE, "\xa0\u3000 \u2028"), None, "C")
add("no thought", [C, f" {C}", f"fever points to lupus{C}", "<think/>" + C, f"<think>fever{C}", f"fever</think>{C}"])
add("empty answer", body("", *WHITE, "\n\n", "\xa0", "\u200b", "\u3000", "\x00", "&nbsp;", "<br>"), None, None)

# --- tags that are none ----------------------------------------------------------------------------------------------
SPELT = ["< {0}>", "<{0} >", "<\n{0}>", "<{0}\t>", "<<{0}>>", "<{0}", "{0}>", "{0}", "<{0}/>", "<{0}s>", "<{0}ing>",
    "<{0} id=1>", "[{0}]", "({0})", "{{{0}}}", "<|{0}|>", "&lt;{0}&gt;", "&#60;{0}&#62;", "&#x3c;{0}&#x3e;",
    "%3C{0}%3E", "\\u003c{0}\\u003e", "\\<{0}\\>", "\uff1c{0}\uff1e", "\u3008{0}\u3009", "\u2039{0}\u203a",
    "\u2329{0}\u232a", "**{0}**", "<!--{0}-->", "`<{0}>`", "<x:{0}>", "<_{0}>", "<\x00{0}>", "<{0}\u0338>"]
for tag in TAGS:
    name = tag.strip("<>")
    shapes = [form.format(name) for form in SPELT]
    # U+212A and U+017F fold to k and s, U+0131 to i: a pattern that ignores case would take them
    shapes += [tag.upper(), tag.title(), tag.swapcase(), tag[:-2] + tag[-2:].upper(), tag.replace("<", "<//"),
               tag.replace("n", "\u0578"), tag.replace("k", "\u212a").replace("s", "\u017f"),
               tag.replace("i", "\u0131").replace("a", "\u0430"), tag.replace("i", "\u0456").replace("e", "\u0435")]
    add(f"{tag} spelt wrongly", [WHOLE.replace(tag, shape) for shape in dict.fromkeys(shapes) if shape != tag])
    add(f"{tag} with something invisible in it", [
        WHOLE.replace(tag, tag[:i] + hidden + tag[i:]) for i, hidden in
        zip(range(1, len(tag)), itertools.cycle("\u200b\xad\ufeff\u202e\u0301\x00\u200d\u2060\xa0"))])
ENTITIES = WHOLE.replace("<", "&lt;").replace(">", "&gt;")
add("the whole text dressed", [ENTITIES, ENTITIES.replace("&", "&amp;"), WHOLE.upper(), WHOLE.title(), WHOLE.swapcase(),
    WHOLE[::-1], " ".join(WHOLE), "\u200b".join(WHOLE), "\x00".join(WHOLE),
    WHOLE.translate({c: 0xFEE0 + c for c in range(0x21, 0x7F)}), WHOLE + WHOLE,
    WHOLE.replace("<", "\\<"), WHOLE.replace("<", "\\x3c"), WHOLE.encode().hex(), repr(WHOLE),
    f"```\n{WHOLE}\n```", f"```xml\n{WHOLE}\n```", f'{{"text": "{WHOLE}"}}',
    f"[{WHOLE}]", f'"{WHOLE}"', f"<response>{WHOLE}</response>", f"({WHOLE})", f"<?xml version='1.0'?>{WHOLE}",
    f"<!-- {WHOLE} -->", f"<![CDATA[{WHOLE}]]>", f"<root>\n{WHOLE}\n</root>", f"\\boxed{{{WHOLE}}}", f"**{WHOLE}**",
    f"> {WHOLE}", f"$${WHOLE}$$", f"assistant\n{WHOLE}", f"\ufeff{WHOLE}", f"\u202e{WHOLE}\u202c", f"{WHOLE}\ufffd"])
add("JSON, XML and the like instead", ['{"think": "a", "answer": "C"}', "<think>a</think>{'answer': 'C'}",
    f"{T}<answer value='C'/>", f"{T}<answer/>C", f"{T}<C/>", f"{T}<final>C</final>", f"{T}<ans>C</ans>",
    "think: a\nanswer: C", "[think]a[/think][answer]C[/answer]", f"{T}answer=C", "## Think\na\n## Answer\nC"])

# --- around the blocks -----------------------------------------------------------------------------------------------
add("words around the blocks", put(OUTSIDE, [".", ",", "C", "A", "-", "0", "/", "<", ">", "</", "<>", "So", "Sure! ",
    "Answer:", "\n---\n", "**", "`", "Final answer: C", "\u4e2d", "\u0627", "\U0001f600", "<br>", "<eos>", "&nbsp;",
    "\\n", "()", "answer", "think", "\xb7"]), None, "C")
add("text after the answer: lenient goes by the block", [f"{T}{C}{x}" for x in (" I am certain.", " The answer is A.",
    "\nA", " or D", " (not C)", "?", " \\boxed{A}", "\n\nuser\nNext")], None, "C")
add("invisible around the blocks", put(OUTSIDE, INVISIBLE + DIRECTION), None, "C")
add("foreign white space around the blocks", put(OUTSIDE, FOREIGN_WHITE), None, "C")
add("control characters around the blocks", put([f"{T}{HOLE}{C}", f"{T}{C}{HOLE}"], CONTROL), None, "C")
SPECIAL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "</s>", "<s>", "<pad>", "<unk>", "<|eot_id|>",
    "<end_of_turn>", "[EOS]", "<|im_start|>assistant\n", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[/INST]",
    "<|assistant|>"]
add("the text of control tokens", put(OUTSIDE + BESIDE, SPECIAL))
ASKED = "Reason inside <think></think>, then give the label of one option inside <answer></answer>, and nothing else."
add("the prompt again", [ASKED, f"{ASKED}\n{T}{C}", f"{T}{C}\n{ASKED}", f"<think>{ASKED}</think>{C}",
    f"{T}<answer>{ASKED}</answer>", f"Which drug?\nA. aspirin\nC. prednisone\n{T}{C}",
    f"{T}{C}<|im_end|>\n<|im_start|>user\nNext?", "A. aspirin\nB. colchicine",
    f"<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n{T}{C}", f"system\n{ASKED}",
    "<think></think><answer></answer>"])

# --- the label -------------------------------------------------------------------------------------------------------
LOOKALIKE = (
    "\u0410\u0412\u0421\u0415\u041d\u0430\u0432\u0441\u0391\u0392\u03f9\u03f2\u0393\u0394\u13df\u13aa\ua4da\ua4d0"
    "\u2ca4\u216d\u217d\u216b\u2160\u2162\u24b8\u24d2\u249e\u24b6\u2462\u2782\u2102\u212d\u2103\u1d04\u1d9c\u0106\xc7"
    "\xa9\xa2\u2201\u2282\u0186\u2183\u1d2c\U0001d402\U0001d436\U0001d46a\U0001d49e\U0001d4d2\U0001d56e\U0001d5a2"
    "\U0001d5d6\U0001d60a\U0001d63e\U0001d672\U0001d400\U0001f132\U0001f152\U0001f172\U0001f112\U0001f1e8\U0001f16d"
    "\U00010415\U000e0043\u2663\u3010")
add("look-alike letters", body(*LOOKALIKE), None, None)
add("full-width: lenient folds it", body("\uff08\uff23\uff09", "\uff23\uff0e", "\uff23\u3002", "\uff08C\uff09",
    "C\uff0e", "C\u3002", "\uff3bC\uff3d", "\uff5bC\uff5d", "\uff23\u3001", "\u3000\uff23", "\uff23 ", "\uff02C\uff02",
    "\uff23\uff1aprednisone", "\uff50rednisone", "\uff23\uff0eprednisone"), None, "C")
for small in "abcd":
    add("lower case and dressings of every label", body(small, chr(0xFEE0 + ord(small)), chr(0xFEC0 + ord(small)),
        f"{small.upper()}.", f"({small.upper()})"), None, small.upper())
add("dressed: lenient undresses it", body("C)", "[C]", "{C}", "'C'", '"C"', "**C**", "*C*", "`C`", "$C$", "\\boxed{C}",
    "\\text{C}", "\\(C\\)", "$\\boxed{\\text{C}}$", "( C )", "Option C", "option C.", "Choice C", "Letter C",
    "The answer is C", "Answer: C", "C.\n", "**(C)**", "\\mathbf{C}", "C:", "C,", "*C", "C*"), None, "C")
add("the option's text: lenient knows it", body("prednisone", "Prednisone", "PREDNISONE.", "C. prednisone",
    "C prednisone", "C: prednisone", "C) prednisone", "(C) prednisone", "C - prednisone", "C (prednisone)",
    "**C. prednisone**", "option C: prednisone", "C\nprednisone"), None, "C")
add("another's text, or all", body("C. aspirin", "A. prednisone", "C: methotrexate", "prednisone aspirin",
    "prednisone or aspirin", "prednison", "not prednisone", " ".join(DRUGS[:4]), ", ".join(DRUGS[:4]),
    "A. aspirin B. colchicine C. prednisone", "(C) aspirin", "paracetamol"), None, None)
add("several labels", body("A or B", "A and B", "A, B", "A,B", "A/B", "A & B", "A+C", "A|C", "A;C", "AB", "CA", "A B",
    "A\nB", "A B C D", "ABCD", "DCBA", "A-D", "A to D", "either A or C", "both A and C", "neither A nor B", "A or C?",
    "A, C", "{A, C}", "[A, C]", "A < C", "A > C", "A = C", "BC", "CD", "A.B", "B\tC", "A -> C"), None, None)
add("one label more than once", body("CC", "C C", "C\nC", "C,C", "C, C", "CCC", "C C C", "C/C", "C or C", "C" * 999),
    None, None)
add("doubt", body("not C", "Not C.", "no C", "C?", "C or not", "unsure", "I don't know", "None", "none of these", "N/A",
    "?", "...", "-", "cannot tell", "any", "*", "_", "all of the above", "\u2026", "see above", "TODO", "!C", "~C",
    "-C", "C?!", "maybe C"), None, None)
add("digits and words", body(*"0123456789", "third", "three", "III", "1/3", "3rd", "0x43", "67", "\u0663", "\uff13",
    "\xb3", "charlie", "Cee", "see", "label", "the third option", "[label]", "X", "True", "null", "{label}", "%s", "$1",
    "3.0"), None, None)
add("something joined to the label", body("C1", "1C", "C_", "_C", "C-", "C+", "C#", "C++", "C=", "xC", "Cx", "'C", "(C",
    "C;", "/C", "\\C", "C\\", "C</b>", "<b>C</b>", "<C>", "<C/>", "C<", ">C", "&C", "C&nbsp;", "C\\n", "#C", "@C",
    "<!-- -->C", "C // sure", "vitamin C", "C. Because.", "\U0001f449C", "C\u20dd", "C\u2714"))
add("foreign white space beside the label", put(BESIDE, FOREIGN_WHITE), None, "C")
add("of no width beside the label: lenient folds it", put(BESIDE, FOLDED), None, "C")
add("invisible beside the label", put(BESIDE, INVISIBLE[len(FOLDED) :] + DIRECTION), None, None)
add("control characters beside the label", put(BESIDE, CONTROL), None, None)
add("marks on the label", body(*(f"C{chr(m)}" for m in (0x300, 0x301, 0x308, 0x327, 0x332, 0x338, 0x20E3, 0x1D167)),
                               "\u0301C", "C\u0301\u0302\u0303", "\U0001f1e8\U0001f1ed"), None, None)
add("Chinese and Arabic", body("\u7b54\u6848\u662fC", "\u9009C", "C\u9009\u9879", "\u9009\u9879C", "\u4e19",
    "\u300cC\u300d", "\u3010C\u3011", "C\u3001D", "A\u6216C", "\u4e0d\u662fC",
    "\u0627\u0644\u0625\u062c\u0627\u0628\u0629 C", "\u062c", "C\u060c", "\u061c C", "\u062cC", "\u2067C\u2069"))
add("no block, but the lenient reader is told", [f"{T}{x}" for x in ("\\boxed{C}", "The answer is C.", "Answer: C",
    "**Answer:** C", "C", "(C)", "prednisone", "\u7b54\u6848\uff1aC")], None, "C")
add("yes, no, maybe", body("yes", "Yes", "YES."), None, "A", "ABC")
add("yes, no, maybe", body("yes or no", "yes, no, maybe", "not yes", "Y", "perhaps", "yes and no"), None, None, "ABC")
add("pattern bombs", [
    *body("(C+)+$", "C" + "!" * 5000, "((((((C))))))" * 99, f"{' ' * 5000}C C", f"C{' ' * 5000}."),
    "<think>" * 999, "<answer>C" * 999, C * 999, T * 999, (T + C) * 99, "<" * 5000, "</think" * 999, "a" * 5000 + "!",
    f"{T}{' ' * 9000}.{C}", f"<think>{'<answer>' * 999}</think>{C}", f"<think>{' ' * 9000}</think>{C}"])
add("no tag at all", ["", *WHITE, "C", "(C)", "\x00", "\ufeff", "\ud800", "<>", "</>", "think answer"])
add("half a character", [f"{T}\ud800{C}", f"{T}{C}\udc00", *body("\ud83d", "C\ud800", "\ud800C")])

# The rule that must have decided, for families in which only one can
RULES = {
    "tags in another order": "order", "empty thought": "empty_think", "several labels": "label", "doubt": "label",
    "words around the blocks": "outside", "foreign white space around the blocks": "outside", "empty answer": "label",
    **{f"{tag} {how}": "think" if "think" in tag else "answer" for tag in TAGS
       for how in ("missing", "twice", "once more at an end", "with something invisible in it")},
}

# --- megabytes: built when asked for, so that collecting the tests stays cheap ---------------------------------------
MEGABYTE = 1_000_000


def fill(piece: str) -> str:
    return piece * (MEGABYTE // len(piece))


ONE = ["a", "C", " ", "<", ">", "\n", "\u200b", "\U0001d402", *TAGS, *(tag[:-1] for tag in TAGS), T, C, T + C]
HUGE = {f"only {piece!a}": (lambda piece=piece: fill(piece), None) for piece in ONE}
for place, frame, fine in (  # and the pieces with which it is right
    ("thought", f"<think>{HOLE}</think>{C}", ("a", "<", "<think", "\u200b", "</ think>", "C")),
    ("gap", f"{T}{HOLE}{C}", (" ", "\r\n")),
    ("end", f"{T}{C}{HOLE}", (" ", "\r\n")),
    ("answer", f"{T}<answer>C{HOLE}</answer>", (" ", "\r\n")),
):
    for piece in ("a", " ", "\r\n", "<", "\xa0", "\u200b", "<think", "</ think>", "<answer>", "C"):
        right = "C" if piece in fine else None
        HUGE[f"{place} of {piece!a}"] = (lambda frame=frame, piece=piece: frame.replace(HOLE, fill(piece)), right)
