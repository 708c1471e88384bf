"""Edit distance of word lists and longest runs of places, for contamination.py."""

from __future__ import annotations


def longest_run(places: list[int]) -> list[int]:
    """Returns the longest run of consecutive numbers, the first among equals."""
    best: list[int] = []
    run: list[int] = []
    for place in places:
        run = [*run, place] if run and place == run[-1] + 1 else [place]
        best = run if len(run) > len(best) else best
    return best


def distance(a: list[str], b: list[str], limit: int) -> int:
    """Returns the Levenshtein distance in words, at most ``limit`` + 1."""
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
