"""`python -m festina` is the `festina` command."""

from festina.cli.main import main

main()
