"""What a teacher is: the graph (oracle.py), a model folder (local.py) and a server (endpoint.py) are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from minifleming.cold_start.trace import Trace
from minifleming.rods.item import Item


class Teacher(Protocol):
    name: str  # stands in every trace

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        """``samples`` traces of each item, told by a strategy of prompts.STRATEGIES.

        ``earlier`` has, for a round of refinement, one trace an item that failed, with what it failed in its
        ``checks``. An answer that could not be read is a trace with the answer "": it counts as tried.
        """

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        """The label that each reasoning leads to for one who does not see the question; "" where it leads nowhere."""
