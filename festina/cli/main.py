"""The `festina` command. Each subcommand lives in a file of its own."""

from __future__ import annotations

import sys

import typer

from festina.cli import config, env, profile
from festina.errors import (
    BadRequestError,
    ConfigError,
    ContextLimitError,
    FestinaError,
    InfeasibleError,
    UnknownModelError,
)

CALLERS_FAULT = (
    BadRequestError,
    ConfigError,
    ContextLimitError,
    InfeasibleError,
    UnknownModelError,
)

app = typer.Typer(
    name="festina",
    help="Energy-first serving of many language models on few GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("config")(config.command)
app.command("env")(env.command)
app.command("profile")(profile.command)


def main() -> None:
    """Run the command line; an expected error is one line on stderr, exit code 2 or 1."""
    try:
        app()
    except FestinaError as error:
        print(f"festina: {error.code}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, CALLERS_FAULT) else 1)
