"""Small question banks of our own writing."""

import numpy as np

from minifleming.rods.item import LABELS, Item


def item(name="a", question="Which vitamin is missing in scurvy?", options=("Vitamin C", "Vitamin D", "Iron", "Zinc"),
         answer="A", **more) -> Item:
    return Item(name, question, dict(zip(LABELS, options)), answer, **more)


SUBJECTS = ["a young sailor", "an old farmer", "a nurse", "a child of four", "a retired teacher", "a long runner"]
SIGNS = ["bleeding gums", "a red tongue", "night blindness", "bowed legs", "a swollen neck", "tingling feet",
         "pale nails",
         "a slow pulse", "brittle hair", "a dry cough", "yellow eyes", "a stiff jaw", "blue lips", "a loud murmur"]
CAUSES = ["vitamin C", "vitamin A", "vitamin D", "iodine", "iron", "zinc", "thiamine", "niacin", "folate",
          "copper",
          "selenium", "biotin", "riboflavin", "cobalamin", "magnesium", "calcium"]
PLACES = ["on a ship", "in the mountains", "in a crowded camp",
          "after a long winter", "on a strict diet", "at sea level"]


def bank(count: int, seed: int = 0, prefix: str = "bank") -> list[Item]:
    """Items that differ in several words each, drawn from a small vocabulary: near misses are common."""
    rng = np.random.default_rng(seed)

    def some(names, n):
        return [names[i] for i in rng.choice(len(names), n, replace=False).tolist()]

    items = []
    for i in range(count):
        [who], [where], signs, options = some(SUBJECTS, 1), some(PLACES, 1), some(SIGNS, 3), some(CAUSES, 4)
        items.append(item(f"{prefix}-{i}", f"While {where}, {who} of {int(rng.integers(10, 80))} years notices "
                          f"{signs[0]}, {signs[1]} and {signs[2]}. Which substance is lacking?", options,
                          LABELS[int(rng.integers(4))]))
    return items
