"""The `festina` command. Each subcommand lives in a file of its own."""

from __future__ import annotations

import sys

import typer

from festina.cli import (
    compare_consolidation,
    config,
    demo,
    env,
    keys,
    launch,
    models,
    process,
    profile,
    replay,
    report,
    serve,
    simulate,
    simulate_faults,
    submit,
    top,
)
from festina.errors import (
    BadRequestError,
    ConfigError,
    ContextLimitError,
    FestinaError,
    InfeasibleError,
    UnknownModelError,
)
from festina.runtime.supervisor import interruptible

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
app.command("serve")(serve.command)
app.command("launch")(launch.command)
app.command("submit")(submit.command)
app.command("replay")(replay.command)
app.command("compare-consolidation")(compare_consolidation.command)
app.command("top")(top.command)
app.command("demo")(demo.command)
app.command("simulate")(simulate.command)
app.command("simulate-faults", hidden=True)(simulate_faults.command)
app.command("report")(report.command)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.command("config")(config.command)
app.command("profile")(profile.command)
app.command("env")(env.command)
app.command("scheduler")(process.scheduler)
app.command("agent")(process.agent)
app.command("consolidator")(process.consolidator)


def main() -> None:
    """Run the command line; an expected error is one line on stderr, exit code 2 or 1."""
    try:
        with interruptible():
            app()
    except FestinaError as error:
        print(f"festina: {error.code}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, CALLERS_FAULT) else 1)
