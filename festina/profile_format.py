"""The layout of a profile file, stated once for those who write and those who read it."""

FORMAT = 1
"""Version of the layout, the first metadata line."""

PHASES = ("prefill", "decode", "idle")
"""What a row can speak of, in the order of the file."""

COLUMNS = (
    "phase",
    "sms",
    "clock_mhz",
    "tokens",
    "context",
    "latency_ms",
    "power_w",
    "flops_per_s",
    "bytes_per_s",
    "spread",
    "samples",
    "source",
)
"""The header row."""
