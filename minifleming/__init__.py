"""minifleming: the Fleming-R1 recipe (arXiv:2509.15279) in plain PyTorch.

Rooms, in the order of the paper:
    rods        §3.1  data from a medical knowledge graph
    cold_start  §3.2  reasoning traces and supervised fine-tuning
    rlvr        §3.3  two-stage reinforcement learning from verifiable rewards
    evaluation  §4    grading, statistics, tables
    lm                the decoder, its weights, tokenizer and sampler
    run               configuration, checkpoints, ranks, progress; knows nothing of the above

Research software. Not for clinical use.
"""

__version__ = "0.1.0"
