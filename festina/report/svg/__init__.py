"""Plots as plain SVG: a few chart forms whose colours come from the page's CSS variables."""
