"""The live page: one file, nothing from the network."""
