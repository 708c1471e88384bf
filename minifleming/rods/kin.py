"""Is one name a variety of another? "Retinitis pigmentosa 12" and "Retinitis pigmentosa 30" share a family.

Entries of a numbered series are told apart by their gene and hardly by their findings, and each is described from a few
patients: a question about one must not offer another as wrong. Molecules and chromosomes are no such series: HLA-B27
and HLA-B51, vitamin A and vitamin K, trisomy 18 and trisomy 21 share a word, and are what a question may be about.
"""

from __future__ import annotations

import re
from functools import cache

TYPE = r"(?:type|subtype|form|grade|stage|class|group|variant|complementation group)"
MARK = r"(?:\d+[a-z]{0,2}\d*|[ivx]+[a-z]?|[a-z]\d*|alpha|beta|gamma|delta)"
TAIL = re.compile(rf"(?:[\s,-]+(?:{TYPE}\s+)?{MARK}|[\s,-]+{TYPE})$")
NO_SERIES = re.compile(r"(?:\b(?:vitamin|interferon|interleukin|complement|factor|protein|immunoglobulin|hemoglobin|"
                       r"trisomy|monosomy|chromosome)[\s-]+|"
                       rf"(?<!\w)(?!beta-)[a-z0-9]{{0,3}}[a-uw-z0-9]-){MARK}$")  # "hla-b27"; no virus: "hiv-1"
INHERITED = re.compile(r"\b(?:autosomal|x-linked|y-linked|mitochondrial|dominant|recessive|semidominant|familial|"
                       r"hereditary|congenital|isolated|sporadic|digenic|early-onset|late-onset|early|late|infantile|juvenile|"
                       r"adult|neonatal|severe|mild|classic|atypical)\b")


@cache
def family(name: str) -> str:
    """The name without its type, number, inheritance and everything after a comma, semicolon or bracket."""
    text = re.split(r"[,;(\[]", name.casefold())[0].strip() or name.casefold().strip()
    text = " ".join(INHERITED.sub(" ", text).split()) or text
    while not NO_SERIES.search(text) and (shorter := TAIL.sub("", text).strip(" ,-")) and shorter != text:
        text = shorter
    return re.sub(rf"^{TYPE} {MARK} ", "", text)


def same_family(a: str, b: str) -> bool:
    """True if the families are equal, or the words of one stand at the end or the start of the other."""
    first, second = sorted((family(a), family(b)), key=len)
    return first == second or (len(first) >= 8 and (second.startswith(first + " ") or second.endswith(" " + first)))
