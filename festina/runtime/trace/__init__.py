"""Traces for ui.perfetto.dev of processes while they serve."""
