"""Finds items that a benchmark contains, too: unchanged or lightly edited.

    "8-grams of medqa-test-226 cover 0.76 of the question"     evidence: the longest shared run
    "near copy of mmlu-anatomy-17"                             evidence: both similarities
    "the question of mmlu-anatomy-17 under other options"      evidence: its words, shared options

A shared 8-gram starts the comparison and decides nothing. Vignettes share stock phrases ("physical
examination shows no abnormalities"): four of five of MedQA's development items share an 8-gram that
occurs in at most three benchmark items with the MedQA test. Therefore words are weighted by
log(N / items with the word), in nats, each word once. An item is contaminated if

    equal     the questions are equal except for case, punctuation and white space, and have eight
              words, or the same answer, or half of the options in common; a question of more than
              three benchmark items ("Which of the following is true?") needs one of the latter two
    covered   shared 8-grams cover at least 0.6 of the weight of the shorter question, and 50 nats
    near      question + options >= 1.6; question = weight of shared character 5-grams relative to
              the lighter question (at least 0.5), options = their weighted Jaccard similarity
    retouched options >= 0.9, and the questions differ in one word, plus one for every thirty; if
              the shorter has fewer than four words, the options must also weigh 50 nats

The 50 nats were measured on 3,170 benchmark items (6.2 words that occur in one item each); for
another index they scale as log N / log 3170. Two ideographs count as one word.

"near" and "retouched" read the options because the questions of a template differ in one finding
only. Shared options under 10 nats ("yes", "no") are ignored; then a question of 0.8 is near.
Numbers of a question count as "0": another age does not make another item. Other laboratory values
may: if both questions have numbers of their own and the answers differ, the item is quarantined. Each item
is compared with the benchmarks only, so the order of the items has no effect.

Not found: translations, paraphrases, and a rewritten stem of few words. False alarm: an item that
is mostly one long sentence which a benchmark item contains, too.

    index = Index([("medqa", items), ...]);  index.match(item)  ->  Match(...) or None

arXiv:2509.15279 §3.1 (benchmark decontamination); 8-grams as in arXiv:2005.14165, appendix C.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from minifleming.extras.curate.distance import distance, longest_run
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
CHARACTERS = 5  # of a gram: an English word with its spaces, two or three ideographs
FLOOR = 0.1  # nats of a word that every item contains
TELLING = 10.0  # minimum nats of shared options: two or three rare grams; "yes" and "no" have 1
MEASURED = 3170  # benchmark items on which the default number of nats was measured
STEM = 8  # words; an equal question of this length is a copy under any options
REFERRING = re.compile(  # options that occur under any question
    r"(?:all|none|any|both|either|neither|each)(?: of)?(?: the)?(?: above| these| them| options)?"
    r"|yes|no|maybe|true|false")
SMALLEST = 20  # items; weights of a smaller benchmark are computed as if it had this many


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of contamination; the module's docstring explains them."""

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
    """The features of an item that are compared."""

    tokens: list[str]  # of the question, numbers masked
    runs: list[tuple[str, ...]]  # 8-grams of the question, in order
    question: frozenset[str]  # character grams of the question
    options: frozenset[str]  # character grams of the options
    stem: str  # the question in plain words, numbers unmasked
    answer: str
    named: frozenset[str]  # options with a meaning of their own
    numbers: Counter  # of the question

    @staticmethod
    def of(item: Item, size: int) -> Text:
        unmasked = words(item.question)
        tokens = mask_numbers(unmasked)
        options = [character_grams(words(text), CHARACTERS) for text in item.options.values()]
        names = map(plain, item.options.values())
        return Text(
            tokens=tokens,
            runs=grams(tokens, size),
            question=frozenset(character_grams(tokens, CHARACTERS)),
            options=frozenset().union(*options),
            stem=" ".join(unmasked),
            answer=answer_key(item),
            named=frozenset(name for name in names if not REFERRING.fullmatch(name)),
            numbers=Counter(token for token in unmasked if token[0].isdigit()),
        )

    @property
    def length(self) -> float:
        """Returns the number of words; two ideographs count as one."""
        return len(self.tokens) - sum(map(ideograph, self.tokens)) / 2

    def other_values(self, other: Text) -> bool:
        """Says whether the answers differ and each question has numbers that the other lacks."""
        if self.answer == other.answer:
            return False
        return bool(self.numbers - other.numbers and other.numbers - self.numbers)


@dataclass(frozen=True, slots=True)
class Match:
    benchmark: str
    id: str
    rule: str  # equal, covered, near, retouched
    evidence: dict
    doubtful: bool = False  # the numbers and the answer differ


class Weights:
    """Weights log(N / items that contain it) of words or grams, in nats; log N if none does."""

    def __init__(self, sets: list[frozenset]):
        self.total = max(len(sets), SMALLEST)
        self.counts = Counter(x for one in sets for x in one)

    def __getitem__(self, x: Hashable) -> float:
        return max(FLOOR, math.log(self.total / max(1, self.counts.get(x, 0))))

    def sum(self, xs) -> float:
        """Returns the sum of weights; exact, so the order of a set has no effect."""
        return math.fsum(map(self.__getitem__, xs))


class Index:
    """An index of the benchmarks' items by the features that an item may share."""

    def __init__(self, benchmarks: list[tuple[str, list[Item]]], limits: Limits | None = None):
        limits = limits or Limits()
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
        self.by_run = defaultdict(list)
        self.by_option = defaultdict(list)
        self.by_question = defaultdict(list)
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
        """Returns the rarest grams of the options; similar sets of options share one.

        Grams in more than a tenth of the items ("yes", "no") start no comparison.
        """
        ordered = sorted(options, key=lambda gram: (self.options.counts.get(gram, 0), gram))
        rest = self.options.sum(options)
        needed = rest * min(self.limits.near - 1, self.limits.retouched) * (1 - 1e-9)
        taken = []
        for gram in ordered:
            if rest < needed:
                break
            taken.append(gram)
            rest -= self.options[gram]
        limit = 0.1 * self.options.total
        return [gram for gram in taken if self.options.counts.get(gram, 0) <= limit]

    def candidates(self, text: Text) -> list[int]:
        """Returns the benchmark items to compare with, in order.

        They share the question, a rare 8-gram, a rare gram of the options, or four rare grams of
        the question.
        """
        found = set(self.by_stem.get(text.stem, ()))
        for run in text.runs:
            found.update(self.by_run.get(run, ()))
        for gram in self.prefix(text.options):
            found.update(self.by_option.get(gram, ()))
        rare: Counter = Counter()
        for gram in text.question:
            rare.update(self.by_question.get(gram, ()))
        found.update(i for i, count in rare.items() if count >= 4)
        return sorted(found)

    def match(self, item: Item) -> Match | None:
        """Returns the first benchmark item of which this one is a copy, or None.

        A copy with other numbers and another answer counts only if there is no other.
        """
        text = Text.of(item, self.limits.size)
        doubtful = None
        words_weight = self.words.sum(set(text.tokens))
        question_weight = self.questions.sum(text.question)
        for i in self.candidates(text):
            found = (self.equal(text, i) or self.covered(text, i, words_weight)
                     or self.near(text, i, question_weight))
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
            return "equal", {"words": text.stem[:200], "options shared": len(shared),
                             "same answer": same}
        return None

    def covered(self, text: Text, i: int, weight: float) -> tuple[str, dict] | None:
        places = [place for place, run in enumerate(text.runs) if run in self.runs[i]]
        if not places:
            return None
        inside = set()
        for place in places:
            inside.update(range(place, place + self.limits.size))
        inside = sorted(inside)
        shared = {text.tokens[place] for place in inside}
        whole = self.words.sum(shared)
        part = whole / min(weight, self.weight_of_words[i])
        nats = whole - self.words.sum(filter(ideograph, shared)) / 2
        if part < self.limits.covered or nats < self.nats:
            return None
        run = " ".join(text.tokens[place] for place in longest_run(inside))
        return "covered", {"covered": round(part, 4), "nats": round(nats, 1), "words": run[:200]}

    def near(self, text: Text, i: int, weight: float) -> tuple[str, dict] | None:
        other, limits = self.texts[i], self.limits
        both = self.options.sum(text.options & other.options)
        options = both / self.options.sum(text.options | other.options)
        if options < min(limits.near - 1, limits.retouched):
            return None
        question = self.questions.sum(text.question & other.question)
        question /= min(weight, self.weight_of_question[i])
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


def contamination_step(items: list[Item], index: Index, *, workers: int = 1) -> Result:
    return divide(each(partial(judge, index=index), items, workers))


def judge(item: Item, index: Index) -> Item | Dropped:
    found = index.match(item)
    if found is None:
        return noted(item, STEP)
    reason = f"in {found.benchmark}" + (", but for numbers and answer" if found.doubtful else "")
    evidence = {"benchmark": found.benchmark, "id": found.id, "rule": found.rule, **found.evidence}
    item = noted(item, STEP, reason=reason)
    return Dropped(item, STEP, reason, evidence, quarantined=found.doubtful)
