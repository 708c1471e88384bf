"""Builds items in any style and language, with variants excluded if asked."""

from __future__ import annotations

import numpy as np

from minifleming.rods.distractors import Distractor, DistractorSearch
from minifleming.rods.item import LABELS, Item
from minifleming.rods.question import ItemBuilder, Option
from minifleming.rods.walk import Step, Walk, Walker

from .absent import draw_absent
from .qualifiers import qualifiers_of
from .styles import English
from .variants import VariantSearch, leaks_masked_name, names_masked_node, revisits_variant


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
        """Adds the qualifiers, the nodes of each option and the surface forms, where they are needed."""
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

    def surface_forms(self, walk: Walk, options: list[Option], absent: tuple[Step, ...]) -> dict[str, str]:
        """Returns name -> surface form, for every name of the item that has one."""
        names = [walk.root, *(step.end for step in (*walk.evidence, *walk.chain, *absent))]
        for option in options:
            names += option
        found = {}
        for name in names:
            if self.style.has_surface_form(name):
                found[name] = self.style.surface_form(name)
        return found

    def gives_away(self, item: Item) -> bool:
        if super().gives_away(item):
            return True
        strict = self.exclude_variants or self.language != "en"
        return strict and (names_masked_node(item) or leaks_masked_name(item))
