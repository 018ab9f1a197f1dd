"""A cluster's folder of keys, as `festina keys` makes it."""

from datetime import UTC, datetime
from pathlib import Path

from festina.cli import keys
from festina.config import SecurityConfig
from festina.security.identity import Identity, make_identity, write_secret
from festina.security.roles import Role


class ClusterKeys:
    """Keys under `folder`: the scheduler's, and whoever is added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys.init(folder)

    def security(self, name: str = "scheduler") -> SecurityConfig:
        """Settings of a process that has this identity."""
        return SecurityConfig(
            identity=self.identity(name), authorized=str(self.folder / "authorized")
        )

    def identity(self, name: str) -> str:
        return str(self.folder / f"{name}.identity")

    def add(self, name: str, role: Role = Role.CLIENT) -> str:
        keys.make(name, role, self.folder)
        return self.identity(name)

    def stranger(self, name: str, scheduler_key: str) -> Identity:
        """Keys that nobody admitted, which know the scheduler's."""
        identity = make_identity(name, Role.CLIENT, datetime.now(UTC), scheduler_key)
        write_secret(self.folder / f"{name}.identity", identity)
        return identity
