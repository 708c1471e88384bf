"""§3.1 Reasoning-Oriented Data Strategy: items with a proof, from a knowledge graph."""
