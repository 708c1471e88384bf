"""Items that a benchmark holds, too: as they are, or lightly edited.

    "8-grams of medqa-test-226 cover 0.76 of the question"       evidence: the longest run of shared words
    "near copy of mmlu-anatomy-17"                               evidence: similarity of the question, of the options
    "the question of mmlu-anatomy-17 under other options"        evidence: its words, the options shared

A shared 8-gram is where the search begins, not a verdict. Vignettes share stock phrases ("physical examination shows no
abnormalities"): one 8-gram that stands in at most three benchmark items is shared with the MedQA test by four in five
of MedQA's own development items. So shared words are weighed by log(N / items that have the word), in nats, each word
once ("mmol/L" of a list of laboratory values tells nothing a second time), and an item is contaminated if

    equal     the questions are equal but for case, punctuation and white space, and they have eight words, or the
              answer is the same, or half of the options are; a question that more than three benchmark items have
              ("Which of the following is true?") needs the latter at any length; or
    covered   shared 8-grams cover at least 0.6 of the weight of the shorter question, and at least 50 nats; or
    near      question + options >= 1.6, where question = the weight of shared character 5-grams as a part of the
              lighter question (at least 0.5), options = their weighted Jaccard similarity; or
    retouched options >= 0.9, and the questions differ in one word, and one more for every thirty; where the shorter has
              fewer than four words, the options must also weigh 50 nats

The 50 nats are those of the 3,170 benchmark items that they were measured on, 6.2 words that stand in one item each; a
smaller or larger index asks for as many words: 50 * log N / log 3170. Two ideographs count as one word here.

The last two read the options, because the questions of a template differ in a finding only. Where the shared options
weigh less than 10 nats ("yes", "no") they tell nothing: then a question of 0.8 is near by itself. Numbers of a
question count as "0": another age makes no other item. But other laboratory values can: where both questions have
numbers of their own, and the answers differ, the item waits in quarantine. An item is judged alone, against the
benchmarks alone, so the order and the company of the items change nothing.

Not seen: translations, paraphrases, and a rewritten stem of few words. An item whose own words are mostly one long
sentence that stands in a benchmark item, too, is an alarm, be that sentence stock elsewhere.

    index = Index([("medqa", items), ...]);  index.match(item)  ->  Match(...) or None

arXiv:2509.15279 §3.1 (benchmark decontamination); 8-grams as in Brown et al. 2020 (arXiv:2005.14165, appendix C).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from minifleming.extras.curate.step import Dropped, Result, divide, each, noted
from minifleming.extras.curate.text import (
    answer_key,
    character_grams,
    grams,
    ideograph,
    mask_numbers,
    plain,
    words,
)
from minifleming.rods.item import Item

STEP = "contamination"
CHARACTERS = 5  # of a gram: a word of English with its spaces, two or three ideographs
FLOOR = 0.1  # nats of what stands in every item
TELLING = 10.0  # nats of shared options: two or three rare grams; "yes", "no", "maybe" have 1
MEASURED = 3170  # benchmark items that the default number of nats was measured on
STEM = 8  # words of a question that is a copy under any options: fewer may be asked by two people
REFERRING = re.compile(r"(?:all|none|any|both|either|neither|each)(?: of)?(?: the)?(?: above| these| them| options)?"
                       r"|yes|no|maybe|true|false")  # an option that is the same under every question
SMALLEST = 20  # items: in a smaller benchmark, what stands in one item is no more telling than that


@dataclass(frozen=True, slots=True)
class Limits:
    """When an item counts as contaminated; why these numbers: the module's docstring."""

    size: int = 8
    common: int = 3
    covered: float = 0.6
    nats: float = 50.0
    near: float = 1.6
    question: float = 0.5
    retouched: float = 0.9
    thirty: int = 30


@dataclass(frozen=True, slots=True)
class Text:
    """What is compared of an item."""

    tokens: list[str]  # of the question, numbers masked
    runs: list[tuple[str, ...]]  # its 8-grams, in order
    question: frozenset[str]  # its character grams
    options: frozenset[str]
    stem: str  # the question in plain words, numbers as they are
    answer: str
    named: frozenset[str]  # the options that say something by themselves
    numbers: Counter  # of the question

    @staticmethod
    def of(item: Item, size: int) -> Text:
        said = words(item.question)
        tokens = mask_numbers(said)
        options = [character_grams(words(text), CHARACTERS) for text in item.options.values()]
        return Text(tokens, grams(tokens, size), frozenset(character_grams(tokens, CHARACTERS)),
                    frozenset().union(*options), " ".join(said), answer_key(item),
                    frozenset(name for name in map(plain, item.options.values()) if not REFERRING.fullmatch(name)),
                    Counter(token for token in said if token[0].isdigit()))

    @property
    def length(self) -> float:
        """In words, of which two ideographs make one."""
        return len(self.tokens) - sum(map(ideograph, self.tokens)) / 2

    def other_values(self, other: Text) -> bool:
        """Has each question numbers that the other lacks, and another answer? An excerpt lacks some, and has none."""
        return bool(self.answer != other.answer and self.numbers - other.numbers and other.numbers - self.numbers)


@dataclass(frozen=True, slots=True)
class Match:
    benchmark: str
    id: str
    rule: str  # equal, covered, near, retouched
    evidence: dict
    doubtful: bool = False  # other numbers, another answer


class Weights:
    """log(N / number of items that have it), in nats, of words or grams; what is in none weighs log N."""

    def __init__(self, sets: list[frozenset]):
        self.total = max(len(sets), SMALLEST)
        self.counts = Counter(x for one in sets for x in one)

    def __getitem__(self, x: Hashable) -> float:
        return max(FLOOR, math.log(self.total / max(1, self.counts.get(x, 0))))

    def sum(self, xs) -> float:
        """The same to the last bit in whatever order a set gives its elements."""
        return math.fsum(map(self.__getitem__, xs))


class Index:
    """The benchmarks' items, by what they share with an item."""

    def __init__(self, benchmarks: list[tuple[str, list[Item]]], limits: Limits = Limits()):  # noqa: B008
        self.limits = limits
        self.names = [(name, item.id) for name, items in benchmarks for item in items]
        self.texts = [Text.of(item, limits.size) for _, items in benchmarks for item in items]
        self.words = Weights([frozenset(text.tokens) for text in self.texts])
        self.questions = Weights([text.question for text in self.texts])
        self.options = Weights([text.options for text in self.texts])
        self.weight_of_words = [self.words.sum(set(text.tokens)) for text in self.texts]
        self.weight_of_question = [self.questions.sum(text.question) for text in self.texts]
        self.nats = limits.nats * math.log(self.words.total) / math.log(MEASURED)
        self.runs = [frozenset(text.runs) for text in self.texts]
        self.by_run, self.by_option, self.by_question = defaultdict(list), defaultdict(list), defaultdict(list)
        self.by_stem = defaultdict(list)
        counts = Counter(run for runs in self.runs for run in runs)
        for i, text in enumerate(self.texts):
            self.by_stem[text.stem].append(i)
            for run in self.runs[i]:
                if counts[run] <= limits.common:
                    self.by_run[run].append(i)
            for gram in self.prefix(text.options):
                self.by_option[gram].append(i)
            for gram in text.question:
                if self.questions.counts[gram] <= limits.common:
                    self.by_question[gram].append(i)

    def prefix(self, options: frozenset[str]) -> list[str]:
        """The rarest grams of the options, so many that the rest weighs too little for the smallest similarity that
        counts. Grams in more than a tenth of the items ("yes", "no") lead to no comparison."""
        ordered = sorted(options, key=lambda gram: (self.options.counts.get(gram, 0), gram))
        rest = self.options.sum(options)
        needed = rest * min(self.limits.near - 1, self.limits.retouched) * (1 - 1e-9)
        taken = []
        for gram in ordered:
            if rest < needed:
                break
            taken.append(gram)
            rest -= self.options[gram]
        return [gram for gram in taken if self.options.counts.get(gram, 0) <= 0.1 * self.options.total]

    def candidates(self, text: Text) -> list[int]:
        """The benchmark items that share the question, an 8-gram that counts, a telling gram of the options, or four
        rare grams of the question; in the order of the benchmarks."""
        found = {i for run in text.runs for i in self.by_run.get(run, ())} | set(self.by_stem.get(text.stem, ()))
        found |= {i for gram in self.prefix(text.options) for i in self.by_option.get(gram, ())}
        rare = Counter(i for gram in text.question for i in self.by_question.get(gram, ()))
        return sorted(found | {i for i, count in rare.items() if count >= 4})

    def match(self, item: Item) -> Match | None:
        """The first benchmark item that this one is a copy of; else the first but for numbers and answer; or None."""
        text, doubtful = Text.of(item, self.limits.size), None
        weight = self.words.sum(set(text.tokens)), self.questions.sum(text.question)
        for i in self.candidates(text):
            found = self.equal(text, i) or self.covered(text, i, weight[0]) or self.near(text, i, weight[1])
            if found and not text.other_values(self.texts[i]):
                return Match(*self.names[i], *found)
            if found and doubtful is None:
                doubtful = Match(*self.names[i], *found, doubtful=True)
        return doubtful

    def equal(self, text: Text, i: int) -> tuple[str, dict] | None:
        other = self.texts[i]
        if text.stem != other.stem:
            return None
        stock = len(self.by_stem[text.stem]) > self.limits.common
        shared = text.named & other.named
        half = len(shared) >= 2 and 2 * len(shared) >= min(len(text.named), len(other.named))
        same = text.answer == other.answer and text.answer in shared
        if same or half or (text.length >= STEM and not stock):
            return "equal", {"words": text.stem[:200], "options shared": len(shared), "same answer": same}
        return None

    def covered(self, text: Text, i: int, weight: float) -> tuple[str, dict] | None:
        places = [place for place, run in enumerate(text.runs) if run in self.runs[i]]
        if not places:
            return None
        inside = sorted({place + k for place in places for k in range(self.limits.size)})
        shared = {text.tokens[place] for place in inside}
        whole = self.words.sum(shared)
        part, nats = whole / min(weight, self.weight_of_words[i]), whole - self.words.sum(filter(ideograph, shared)) / 2
        if part < self.limits.covered or nats < self.nats:
            return None
        return "covered", {"covered": round(part, 4), "nats": round(nats, 1),
                           "words": " ".join(text.tokens[place] for place in longest_run(inside))[:200]}

    def near(self, text: Text, i: int, weight: float) -> tuple[str, dict] | None:
        other, limits = self.texts[i], self.limits
        both = self.options.sum(text.options & other.options)
        options = both / self.options.sum(text.options | other.options)
        if options < min(limits.near - 1, limits.retouched):
            return None
        question = self.questions.sum(text.question & other.question) / min(weight, self.weight_of_question[i])
        evidence = {"question": round(question, 4), "options": round(options, 4)}
        telling = both >= TELLING
        least = limits.question if telling else limits.near / 2
        if question >= least and question + options >= limits.near:
            return "near", evidence
        if telling and options >= limits.retouched:
            shorter = min(len(text.tokens), len(other.tokens))
            allowed = 1 + shorter // limits.thirty if shorter >= 4 or both >= self.nats else 0
            changed = distance(text.tokens, other.tokens, allowed)
            if changed <= allowed:
                return "retouched", {**evidence, "words changed": changed}
        return None


def longest_run(places: list[int]) -> list[int]:
    """The longest stretch of consecutive numbers, the first among equals."""
    best: list[int] = []
    run: list[int] = []
    for place in places:
        run = [*run, place] if run and place == run[-1] + 1 else [place]
        best = run if len(run) > len(best) else best
    return best


def distance(a: list[str], b: list[str], limit: int) -> int:
    """Words to insert, delete or replace (Levenshtein); ``limit`` + 1 if it is more than ``limit``."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        low, high = max(1, i - limit), min(len(b), i + limit)
        new = [limit + 1] * (len(b) + 1)
        new[0] = i
        for j in range(low, high + 1):
            new[j] = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != b[j - 1]))
        row = new
    return min(row[-1], limit + 1)


def contamination_step(items: list[Item], index: Index, *, workers: int = 1) -> Result:
    return divide(each(partial(judge, index=index), items, workers))


def judge(item: Item, index: Index) -> Item | Dropped:
    found = index.match(item)
    if found is None:
        return noted(item, STEP)
    reason = f"in {found.benchmark}" + (", but for numbers and answer" if found.doubtful else "")
    evidence = {"benchmark": found.benchmark, "id": found.id, "rule": found.rule, **found.evidence}
    return Dropped(noted(item, STEP, reason=reason), STEP, reason, evidence, quarantined=found.doubtful)
