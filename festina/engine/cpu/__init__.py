"""A Llama-class decoder on the CPU, read straight from GGUF."""
