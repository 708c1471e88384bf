"""Readers of public multiple-choice sets, one file a set; `read.py` has the table of them."""
