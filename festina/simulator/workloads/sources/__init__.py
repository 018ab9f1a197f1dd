"""Recorded traffic that recipes are made of, and synthetic stand-ins fitted to it."""
