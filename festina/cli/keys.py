"""`festina keys`: make, list and revoke the keys of a cluster (docs/security.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from festina.errors import ConfigError
from festina.security.authorized import read_folder, read_public
from festina.security.identity import (
    Identity,
    PublicKey,
    make_identity,
    read_identity,
    write_secret,
)
from festina.security.roles import Role

SCHEDULER = "scheduler"

app = typer.Typer(
    help="Keys of the cluster: who may be a client, an agent or an operator.", no_args_is_help=True
)
Folder = Annotated[
    Path, typer.Option("--dir", help="Folder of the cluster's keys.", show_default=True)
]


@app.command()
def init(folder: Folder = Path("keys")) -> None:
    """Make the folder and the scheduler's own keys."""
    for path in (folder, folder / "authorized", folder / "revoked"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = make_identity(SCHEDULER, Role.SCHEDULER, datetime.now(UTC))
    write_secret(folder / f"{SCHEDULER}.identity", identity)
    _admit(folder, identity.public)
    print(f"{folder / SCHEDULER}.identity is the cluster's own: it stays on its machine.")


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="Whose key; an agent's name, for an agent.")],
    role: Annotated[Role, typer.Option(help="What its owner may do.")] = Role.CLIENT,
    folder: Folder = Path("keys"),
) -> None:
    """Make a key and admit it; hand NAME.identity to its owner over a channel you trust."""
    cluster = _cluster(folder)
    revoked = folder / "revoked" / f"{name}.key"
    if revoked.exists():
        raise ConfigError(f"{name!r} was revoked", field="name", expected="another name")
    identity = make_identity(name, role, datetime.now(UTC), cluster.public.public_key)
    write_secret(folder / f"{name}.identity", identity)
    _admit(folder, identity.public)
    print(folder / f"{name}.identity")


@app.command("list")
def list_keys(folder: Folder = Path("keys")) -> None:
    """Show the keys that are admitted, and those that were revoked."""
    table = Table("name", "role", "made", "state", "public key")
    for state in ("authorized", "revoked"):
        for key in read_folder(folder / state, "--dir").values():
            table.add_row(key.name, key.role, key.made, state, key.public_key)
    Console().print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key.")], folder: Folder = Path("keys")
) -> None:
    """Admit a key no more; running processes refuse it within a second."""
    path = folder / "authorized" / f"{name}.key"
    key = read_public(path, "name")
    if key.role is Role.SCHEDULER:
        raise ConfigError(
            "the scheduler's key is the cluster", field="name", expected="`festina keys init` anew"
        )
    path.rename(folder / "revoked" / path.name)
    print(f"{name} is out.")


def _cluster(folder: Path) -> Identity:
    path = folder / f"{SCHEDULER}.identity"
    if not path.exists():
        raise ConfigError(
            f"{folder} has no keys of a cluster",
            field="--dir",
            expected="`festina keys init` first",
        )
    return read_identity(path, "--dir")


def _admit(folder: Path, key: PublicKey) -> None:
    """Written aside and renamed: servers never see half a file."""
    data = msgspec.json.format(msgspec.json.encode(key), indent=2) + b"\n"
    path = folder / "authorized" / f"{key.name}.key"
    aside = path.with_suffix(".new")
    aside.write_bytes(data)
    aside.rename(path)
