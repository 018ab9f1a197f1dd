"""Festina: energy-first serving of many language models on few GPUs."""

from importlib.metadata import version

__version__ = version("festina")
