"""§4 Evaluation: benchmarks, grading, statistics, tables."""
