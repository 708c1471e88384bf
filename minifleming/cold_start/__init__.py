"""§3.2 Chain-of-thought cold start: reasoning traces, their checks, and supervised fine-tuning."""
