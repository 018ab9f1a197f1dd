"""Protocol logic without I/O: `on_message(message, now)` and `on_timer(now)` return effects."""
