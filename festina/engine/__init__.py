"""Engines run models: weights, tokenizer, paged KV cache, model step, sampler."""
