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
may: if both questions have numbers of their own and the answers differ, the item is quarantined.
Each item is compared with the benchmarks only, so the order of the items has no effect.

Not found: translations, paraphrases, and a rewritten stem of few words. False alarm: an item that
is mostly one long sentence which a benchmark item contains, too.

    index = Index([("medqa", items), ...]);  index.match(item)  ->  Match(...) or None

arXiv:2509.15279 §3.1 (benchmark decontamination); 8-grams as in arXiv:2005.14165, appendix C.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import chain

from minifleming.extras.curate.step import Dropped, Result, divide, drop, noted
from minifleming.extras.curate.text import (
    answer_key,
    character_grams,
    distance,
    grams,
    ideograph,
    longest_run,
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

# Thresholds; the docstring explains them.
SIZE = 8  # words of a run, as in GPT-3
COMMON = 3  # a run in more benchmark items is a stock phrase
COVERED = 0.6
NATS = 50.0
NEAR = 1.6
QUESTION = 0.5
RETOUCHED = 0.9


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
    def of(item: Item) -> Text:
        unmasked = words(item.question)
        tokens = mask_numbers(unmasked)
        options = [character_grams(words(text), CHARACTERS) for text in item.options.values()]
        names = map(plain, item.options.values())
        return Text(
            tokens=tokens,
            runs=grams(tokens, SIZE),
            question=frozenset(character_grams(tokens, CHARACTERS)),
            options=frozenset().union(*options),
            stem=" ".join(unmasked),
            answer=answer_key(item),
            named=frozenset(name for name in names if not REFERRING.fullmatch(name)),
            numbers=Counter(token for token in unmasked if token[0].isdigit()),
        )

    def other_values(self, other: Text) -> bool:
        """Says whether the answers differ and each question has numbers that the other lacks."""
        if self.answer == other.answer:
            return False
        return bool(self.numbers - other.numbers and other.numbers - self.numbers)


class Weights:
    """Weights log(N / items that contain it) of words or grams, in nats; log N if none does."""

    def __init__(self, sets: Iterable[Iterable]):
        sets = list(sets)
        self.total = max(len(sets), SMALLEST)
        self.counts = Counter(chain.from_iterable(sets))

    def __getitem__(self, x: Hashable) -> float:
        return max(FLOOR, math.log(self.total / max(1, self.counts.get(x, 0))))

    def sum(self, xs) -> float:
        """Returns the sum of weights; exact, so the order of a set has no effect."""
        return math.fsum(map(self.__getitem__, xs))


class Index:
    """An index of the benchmarks' items by the features that an item may share."""

    def __init__(self, benchmarks: list[tuple[str, list[Item]]]):
        self.names = []
        self.texts = []
        for name, items in benchmarks:
            self.names += [(name, item.id) for item in items]
            self.texts += map(Text.of, items)
        self.words = Weights(set(text.tokens) for text in self.texts)
        self.questions = Weights(text.question for text in self.texts)
        self.options = Weights(text.options for text in self.texts)
        self.weight_of_words = [self.words.sum(set(text.tokens)) for text in self.texts]
        self.weight_of_question = [self.questions.sum(text.question) for text in self.texts]
        self.nats = NATS * math.log(self.words.total) / math.log(MEASURED)
        self.runs = [frozenset(text.runs) for text in self.texts]
        self.by_run = defaultdict(list)
        self.by_option = defaultdict(list)
        self.by_question = defaultdict(list)
        self.by_stem = defaultdict(list)
        counts = Counter(chain.from_iterable(self.runs))
        for i, text in enumerate(self.texts):
            self.by_stem[text.stem].append(i)
            for run in self.runs[i]:
                if counts[run] <= COMMON:
                    self.by_run[run].append(i)
            for gram in self.prefix(text.options):
                self.by_option[gram].append(i)
            for gram in text.question:
                if self.questions.counts[gram] <= COMMON:
                    self.by_question[gram].append(i)

    def prefix(self, options: frozenset[str]) -> list[str]:
        """Returns the rarest grams of the options; similar sets of options share one.

        Grams in more than a tenth of the items ("yes", "no") start no comparison.
        """
        ordered = sorted(options, key=lambda gram: (self.options.counts[gram], gram))
        rest = self.options.sum(options)
        needed = rest * min(NEAR - 1, RETOUCHED) * (1 - 1e-9)
        taken = []
        for gram in ordered:
            if rest < needed:
                break
            taken.append(gram)
            rest -= self.options[gram]
        return [gram for gram in taken if self.options.counts[gram] <= 0.1 * self.options.total]

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

    def match(self, item: Item) -> tuple[dict, bool] | None:
        """Returns the evidence of the first benchmark item of which this one is a copy, or None.

        A copy with other numbers and another answer is doubtful; it counts only if there is no
        other.
        """
        text = Text.of(item)
        doubtful = None
        words_weight = self.words.sum(set(text.tokens))
        question_weight = self.questions.sum(text.question)
        for i in self.candidates(text):
            found = (self.equal(text, i) or self.covered(text, i, words_weight)
                     or self.near(text, i, question_weight))
            if not found:
                continue
            evidence = {"benchmark": self.names[i][0], "id": self.names[i][1], **found}
            if not text.other_values(self.texts[i]):
                return evidence, False
            doubtful = doubtful or (evidence, True)
        return doubtful

    def equal(self, text: Text, i: int) -> dict | None:
        other = self.texts[i]
        if text.stem != other.stem:
            return None
        shared = text.named & other.named
        half = len(shared) >= 2 and 2 * len(shared) >= min(len(text.named), len(other.named))
        same = text.answer == other.answer and text.answer in shared
        length = len(text.tokens) - sum(map(ideograph, text.tokens)) / 2
        if same or half or (length >= STEM and len(self.by_stem[text.stem]) <= COMMON):
            return {"rule": "equal", "words": text.stem[:200], "options shared": len(shared),
                    "same answer": same}
        return None

    def covered(self, text: Text, i: int, weight: float) -> dict | None:
        places = [place for place, run in enumerate(text.runs) if run in self.runs[i]]
        if not places:
            return None
        inside = set()
        for place in places:
            inside.update(range(place, place + SIZE))
        shared = {text.tokens[place] for place in inside}
        whole = self.words.sum(shared)
        part = whole / min(weight, self.weight_of_words[i])
        nats = whole - self.words.sum(filter(ideograph, shared)) / 2
        if part < COVERED or nats < self.nats:
            return None
        run = " ".join(text.tokens[place] for place in longest_run(sorted(inside)))
        return {"rule": "covered", "covered": round(part, 4), "nats": round(nats, 1),
                "words": run[:200]}

    def near(self, text: Text, i: int, weight: float) -> dict | None:
        other = self.texts[i]
        both = self.options.sum(text.options & other.options)
        options = both / self.options.sum(text.options | other.options)
        if options < min(NEAR - 1, RETOUCHED):
            return None
        question = self.questions.sum(text.question & other.question)
        question /= min(weight, self.weight_of_question[i])
        evidence = {"question": round(question, 4), "options": round(options, 4)}
        telling = both >= TELLING
        if question >= (QUESTION if telling else NEAR / 2) and question + options >= NEAR:
            return {"rule": "near", **evidence}
        if telling and options >= RETOUCHED:
            shorter = min(len(text.tokens), len(other.tokens))
            allowed = 1 + shorter // 30 if shorter >= 4 or both >= self.nats else 0
            changed = distance(text.tokens, other.tokens, allowed)
            if changed <= allowed:
                return {"rule": "retouched", **evidence, "words changed": changed}
        return None


def contamination_step(items: list[Item], index: Index) -> Result:
    return divide(judge(item, index) for item in items)


def judge(item: Item, index: Index) -> Item | Dropped:
    found = index.match(item)
    if found is None:
        return noted(item, STEP)
    evidence, doubtful = found
    reason = f"in {evidence['benchmark']}" + (", but for numbers and answer" if doubtful else "")
    return drop(item, STEP, reason, evidence, quarantined=doubtful)
