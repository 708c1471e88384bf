"""The item builder for a configuration that asks for more than plain questions."""

from __future__ import annotations

from minifleming.rods.graph import Graph
from minifleming.rods.question import ItemBuilder
from minifleming.rods.synthesize import walker_from_config
from minifleming.run.errors import BadInput
from minifleming.run.fields import Data

from .builder import WordedBuilder
from .qualifiers import ExtendedWalker
from .styles import Chinese, English, read_chinese_names
from .two_targets import MixedBuilder


def worded_builder(data: Data, graph: Graph) -> ItemBuilder:
    """Returns the builder that the configuration asks for. Raises BadInput."""
    if data.qualifiers and (data.style == "plain" or data.language != "en"):
        raise BadInput("data.qualifiers: only the English styles varied and vignette can word them")
    if data.language != "en" and data.style == "varied":
        raise BadInput("data.style: Chinese has one wording; 'vignette' adds absent findings")
    walker = walker_from_config(data, graph, ExtendedWalker, qualifiers=data.qualifiers, by_name=data.exclude_variants)
    style = English(data.style)
    if data.language == "zh":
        style = Chinese(data.style, read_chinese_names(data.names, graph))
    settings = (walker, data.options, tuple(data.findings), style, data.exclude_variants)
    if data.two_targets > 0:
        return MixedBuilder(*settings, share=data.two_targets)
    return WordedBuilder(*settings)
