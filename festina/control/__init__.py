"""Decisions. Pure: no sockets, no clock, no threads, no randomness that is not passed in."""
