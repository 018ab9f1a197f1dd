"""Requests over time: traces from files, and the open-loop driver that sends them."""
