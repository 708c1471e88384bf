"""§3.2 Chain-of-thought cold start: traces, packing, supervised fine-tuning."""
