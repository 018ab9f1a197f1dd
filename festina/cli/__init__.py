"""The `festina` command."""
