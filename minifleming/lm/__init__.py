"""The language model: decoder, weights, tokenizer, cache, sampler."""
