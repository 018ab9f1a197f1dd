"""Damaged frames, bodies and files for everything that reads what another wrote."""
