"""Hours of load on real processes, and what they leave behind."""
