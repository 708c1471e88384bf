"""Curation of public question banks into training items (arXiv:2509.15279 §3.1, Fig. 2)."""
