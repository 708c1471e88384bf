"""Builds items in any style and language, with variants excluded and with two targets if asked.

A question with two targets asks for the root and the end of the chain; an option is a pair (§3.1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minifleming.rods.distractors import MAX_DIAGNOSES, Distractor, DistractorSearch, ends_of
from minifleming.rods.graph import Graph
from minifleming.rods.item import LABELS, Item
from minifleming.rods.question import ItemBuilder, Option
from minifleming.rods.synthesize import walker_from_config
from minifleming.rods.walk import Step, Walk, Walker
from minifleming.run.errors import BadInput
from minifleming.run.fields import Data

from .patient import draw_absent
from .qualifiers import ExtendedWalker, qualifiers_of
from .styles import Chinese, English, read_chinese_names
from .variants import VariantSearch, leaks_masked_name, names_masked_node, revisits_variant


def worded_builder(data: Data, graph: Graph) -> ItemBuilder:
    """Returns the builder that the configuration asks for. Raises BadInput."""
    if data.qualifiers and (data.style == "plain" or data.language != "en"):
        raise BadInput("data.qualifiers: only the English styles varied and vignette can word them")
    if data.language != "en" and data.style == "varied":
        raise BadInput("data.style: Chinese has one wording; 'vignette' adds absent findings")
    walker = walker_from_config(data, graph, ExtendedWalker, qualifiers=data.qualifiers,
                                by_name=data.exclude_variants)
    style = English(data.style)
    if data.language == "zh":
        style = Chinese(data.style, read_chinese_names(data.names, graph))
    settings = (walker, data.options, tuple(data.findings), style, data.exclude_variants)
    if data.two_targets > 0:
        return MixedBuilder(*settings, share=data.two_targets)
    return WordedBuilder(*settings)


class WordedBuilder(ItemBuilder):
    """Builds items in the words of ``style``."""

    two_targets = False

    def __init__(self, walker: Walker, num_options: int = 4, findings: tuple[int, int] = (2, 4),
                 style: English | None = None, exclude_variants: bool = False):
        super().__init__(walker, num_options, findings)
        self.style = style or English()
        self.language = self.style.language
        self.exclude_variants = exclude_variants
        search = VariantSearch if exclude_variants else DistractorSearch
        self.search = search(walker, self.style.has_surface_form)

    def can_render(self, walk: Walk) -> bool:
        if self.exclude_variants and revisits_variant(walk, self.graph):
            return False
        named = all(self.style.has_surface_form(name) for name in self.targets(walk))
        return named and self.style.can_render(walk)

    def render(self, walk: Walk, options: list[Option], wrong: dict[str, Distractor],
               rng: np.random.Generator) -> tuple[str, tuple[Step, ...]]:
        absent: tuple[Step, ...] = ()
        if self.style.style == "vignette":
            avoid = {step.end for step in walk.chain}
            avoid.update(*options)
            diagnoses = [one.diagnosis for one in wrong.values() if one.diagnosis]
            absent = draw_absent(walk, self.walker, diagnoses, rng,
                                 lambda name: name not in avoid and self.can_name(name))
        names = tuple(step.end for step in absent)
        return self.style.render(walk, self.graph, rng, self.two_targets, names), absent

    def can_name(self, finding: str) -> bool:
        return self.style.has_surface_form(finding) and self.style.in_a_patient(finding)

    def option_text(self, option: Option) -> str:
        return self.style.separator.join(self.style.surface_form(name) for name in option)

    def visible(self, walk: Walk) -> list[tuple[str, str, str]]:
        return super().visible(walk) + [step.triple for step in qualifiers_of(walk)]

    def provenance(self, walk: Walk, options: list[Option], wrong: dict[str, Distractor],
                   absent: tuple[Step, ...]) -> dict:
        """Adds the qualifiers, nodes of each option and surface forms, where they are needed."""
        found = super().provenance(walk, options, wrong, absent)
        qualifiers = qualifiers_of(walk)
        if qualifiers:
            found["pins"] = [step.triple for step in qualifiers]
        translated = self.language != "en"
        if self.two_targets or translated:
            found["nodes"] = {label: list(option) for label, option in zip(LABELS, options)}
        if translated:
            found["told"] = self.surface_forms(walk, options, absent)
        return found

    def surface_forms(self, walk: Walk, options: list[Option],
                      absent: tuple[Step, ...]) -> dict[str, str]:
        """Returns name -> surface form, for every name of the item that has one."""
        names = [walk.root, *(step.end for step in (*walk.evidence, *walk.chain, *absent))]
        for option in options:
            names += option
        named = filter(self.style.has_surface_form, names)
        return {name: self.style.surface_form(name) for name in named}

    def gives_away(self, item: Item) -> bool:
        strict = self.exclude_variants or self.language != "en"
        named = strict and (names_masked_node(item) or leaks_masked_name(item))
        return named or super().gives_away(item)


class TwoTargetBuilder(WordedBuilder):
    """Builds items that ask for the root and the end of the chain."""

    two_targets = True

    def targets(self, walk: Walk) -> Option:
        return walk.root, walk.answer

    def distractors(self, walk: Walk, rng: np.random.Generator,
                    option_deficit: Mapping[str, int]) -> dict[Option, Distractor]:
        return with_half_right(walk, find_pairs(walk, self.search, rng))


class MixedBuilder(WordedBuilder):
    """Builds items with two targets for a share of the walks that have a chain, else with one."""

    def __init__(self, *args, share: float, **more):
        super().__init__(*args, **more)
        self.share = share
        self.two_target_builder = TwoTargetBuilder(*args, **more)

    def build(self, walk: Walk, rng: np.random.Generator, prefix: str = "kg",
              option_deficit: Mapping[str, int] | None = None) -> Item | None:
        drawn = rng.random() < self.share
        if drawn and walk.chain:
            return self.two_target_builder.build(walk, rng, prefix, option_deficit)
        return super().build(walk, rng, prefix, option_deficit)


def find_pairs(walk: Walk, search: DistractorSearch,
               rng: np.random.Generator) -> dict[Option, Distractor]:
    """Returns wrong pairs: a competing diagnosis and an end of its chain that is not the answer.

    The discriminating triple is the first finding that the diagnosis lacks. The diagnosis that
    shares most findings comes first.
    """
    found: dict[Option, Distractor] = {}
    for diagnosis in search.ranked_diagnoses(walk, rng)[:MAX_DIAGNOSES]:
        missing = search.missing_findings(walk, diagnosis)
        if not missing or not search.is_usable(diagnosis):
            continue
        if search.too_similar(diagnosis, walk.root):
            continue
        for end in ends_of(diagnosis, walk.chain, search.graph):
            if end != diagnosis and search.discriminating_triple(walk, end) is not None:
                found[diagnosis, end] = Distractor(diagnosis, missing[0].triple)
                break
    return found


def with_half_right(walk: Walk, found: dict[Option, Distractor]) -> dict[Option, Distractor]:
    """Puts first the right root with a wrong end, and a wrong root with the right end.

    Otherwise one half of a pair would reveal the other.
    """
    if len(found) < 2:
        return found
    (diagnosis, _), (_, wrong_end) = list(found)[:2]
    right_root = Distractor("", walk.chain[-1].triple)
    wrong_root = found[next(iter(found))]
    mixed = {(walk.root, wrong_end): right_root, (diagnosis, walk.answer): wrong_root}
    return mixed | found
