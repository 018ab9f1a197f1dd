"""Native parts of festina."""

def build_info() -> dict[str, object]:
    """What this module was built with."""
