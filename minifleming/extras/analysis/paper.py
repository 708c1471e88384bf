"""The nine benchmarks of the paper (§4), by the names of our readers, and how many items each has there.

    careqa 5,621   jmed 1,000   medbullets 298   medmcqa 4,183   medqa 1,273   medxpertqa 2,450
    mmlu_pro_biology 717   mmlu_pro_health 818   pubmedqa_test 500

The paper prints shares, not counts: these are the sizes that its figures fit. Its Table 1 leaves Medbullets out, gives
PubMedQA 1,000 items and MedXpertQA four options; the scores fit 500, and the published file has ten options.
"""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    items: int
    more: str = "another file"  # why ours can have more


SIZES = {
    "medqa": Size(1273),
    "medmcqa": Size(4183),
    "pubmedqa_test": Size(500),
    "pubmedqa": Size(500, "all labelled questions are read; pubmedqa_test reads those of the test list alone"),
    "medbullets": Size(298, "ten of the 308 questions come twice, and the paper's score fits a denominator of 298"),
    "medxpertqa": Size(2450),
    "careqa": Size(5621),
    "jmed": Size(1000),
    "mmlu_pro_biology": Size(717),
    "mmlu_pro_health": Size(818),
}


def differences(sizes: dict[str, int]) -> list[str]:
    """A sentence on each of these benchmarks, name -> items, whose size is not the paper's."""
    found = []
    for name, n in sizes.items():
        if name in SIZES and n != SIZES[name].items:
            why = SIZES[name].more if n > SIZES[name].items else "a part of it"
            found.append(f"{name} has {n:,} items here and {SIZES[name].items:,} in the paper: {why}.")
    return found
