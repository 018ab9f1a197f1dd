"""Keys, the folder of those that are admitted, and what each role may say."""

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cluster_keys import ClusterKeys

from festina.cli import keys
from festina.config import SecurityConfig
from festina.errors import ConfigError, NotAllowedError
from festina.messages import (
    AnyMessage,
    Direct,
    Generate,
    GetCluster,
    Leave,
    Load,
    Ping,
    Register,
    Submit,
    Summary,
)
from festina.security.authorized import LOOK_S, AuthorizedKeys, read_folder
from festina.security.guard import ZAP_DOMAIN, Guard, build_guard
from festina.security.identity import (
    make_identity,
    read_identity,
    write_secret,
)
from festina.security.roles import Role, allowed, check_allowed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBMIT = Submit("r", "chat", 1, 1)


def register(agent: str, public_key: str = "") -> Register:
    return Register(agent, 1, "tcp://127.0.0.1:1", "cpu", 1, (), 1, (), public_key)


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterKeys:
    return ClusterKeys(tmp_path / "keys")


# Identities


def test_an_identity_reads_back_and_only_its_owner_can_read_it(tmp_path: Path):
    identity = make_identity("alice", Role.CLIENT, NOW, "s" * 40)
    write_secret(tmp_path / "alice.identity", identity)
    assert read_identity(tmp_path / "alice.identity") == identity
    assert stat.S_IMODE((tmp_path / "alice.identity").stat().st_mode) == 0o600


def test_an_identity_is_never_written_over(tmp_path: Path):
    path = tmp_path / "alice.identity"
    write_secret(path, make_identity("alice", Role.CLIENT, NOW))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="a new file"):
        write_secret(path, make_identity("alice", Role.CLIENT, NOW))
    assert path.read_bytes() == before


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path):
    path = tmp_path / "alice.identity"
    write_secret(path, make_identity("alice", Role.CLIENT, NOW))
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="mode 0600"):
        read_identity(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"client"', '"king"'),
        lambda text: json.dumps(json.loads(text) | {"more": 1}),
        lambda text: json.dumps(json.loads(text) | {"secret_key": "x" * 40}),
        lambda text: json.dumps(json.loads(text) | {"secret_key": '"' * 40}),
        lambda text: json.dumps(
            json.loads(text) | {"secret_key": make_identity("bob", Role.CLIENT, NOW).secret_key}
        ),
    ],
)
def test_a_damaged_identity_is_refused_by_name(tmp_path: Path, spoil):
    path = tmp_path / "alice.identity"
    write_secret(path, make_identity("alice", Role.CLIENT, NOW))
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ConfigError) as caught:
        read_identity(path)
    assert caught.value.field == "security.identity"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "ä", "x" * 65, "a\n"])
def test_names_that_could_leave_the_folder_are_refused(name: str):
    with pytest.raises(ConfigError):
        make_identity(name, Role.CLIENT, NOW)


def test_no_secret_shows_in_a_log():
    identity = make_identity("alice", Role.CLIENT, NOW)
    assert identity.secret_key not in f"{identity!r} {identity}"


# The folder


def test_keys_are_made_listed_and_revoked(cluster: ClusterKeys, capsys: pytest.CaptureFixture):
    cluster.add("alice")
    cluster.add("gpu-1", Role.AGENT)
    keys.revoke("alice", cluster.folder)
    admitted = {key.name: key.role for key in read_folder(cluster.folder / "authorized").values()}
    assert admitted == {"scheduler": Role.SCHEDULER, "gpu-1": Role.AGENT}
    capsys.readouterr()
    keys.list_keys(cluster.folder)
    shown = capsys.readouterr().out
    assert "alice" in shown
    assert "revoked" in shown
    with pytest.raises(ConfigError, match="was revoked"):
        cluster.add("alice")


def test_the_scheduler_cannot_be_revoked(cluster: ClusterKeys):
    with pytest.raises(ConfigError, match="the scheduler's key is the cluster"):
        keys.revoke("scheduler", cluster.folder)


def test_keys_need_a_cluster(tmp_path: Path):
    with pytest.raises(ConfigError, match="init"):
        keys.make("alice", Role.CLIENT, tmp_path)
    with pytest.raises(ConfigError):
        keys.revoke("alice", tmp_path)


def test_a_revoked_key_is_out_after_the_next_look(cluster: ClusterKeys):
    clock = [0.0]
    alice = read_identity(Path(cluster.add("alice"))).public
    admitted = AuthorizedKeys(cluster.folder / "authorized", lambda: clock[0])
    assert admitted.find(alice.public_key) == alice
    keys.revoke("alice", cluster.folder)
    clock[0] = LOOK_S
    assert admitted.find(alice.public_key) is None


def test_a_new_key_is_in_at_once(cluster: ClusterKeys):
    admitted = AuthorizedKeys(cluster.folder / "authorized", lambda: 0.0)
    bob = read_identity(Path(cluster.add("bob"))).public
    assert admitted.find(bob.public_key) == bob


def test_a_folder_that_cannot_be_read_any_more_admits_nobody(cluster: ClusterKeys):
    clock = [0.0]
    alice = read_identity(Path(cluster.add("alice"))).public
    admitted = AuthorizedKeys(cluster.folder / "authorized", lambda: clock[0])
    (cluster.folder / "authorized" / "broken.key").write_text("{")
    clock[0] = LOOK_S
    assert admitted.find(alice.public_key) is None
    assert admitted.error is not None
    (cluster.folder / "authorized" / "broken.key").unlink()
    clock[0] = 2 * LOOK_S
    assert admitted.find(alice.public_key) == alice
    assert admitted.error is None


def test_one_key_under_two_names_is_refused(cluster: ClusterKeys):
    folder = cluster.folder / "authorized"
    twin = json.loads((folder / "scheduler.key").read_text()) | {"name": "twin"}
    (folder / "twin.key").write_text(json.dumps(twin))
    with pytest.raises(ConfigError, match="one key"):
        read_folder(folder)


# Roles


def test_a_client_may_ask_and_nothing_more():
    assert {kind.__name__ for kind in allowed(Role.CLIENT)} == {
        "Submit",
        "GetCluster",
        "Generate",
        "Probe",
        "Attach",
        "Cancel",
        "Ping",
        "Pong",
    }
    check_allowed("alice", Role.CLIENT, SUBMIT)
    for message in (Load("chat"), Leave("gpu-1", 1), Direct(1, "gpu-1", 1, Load("chat"))):
        with pytest.raises(NotAllowedError, match=type(message).__name__):
            check_allowed("alice", Role.CLIENT, message)


def test_the_scheduler_may_say_everything():
    assert allowed(Role.SCHEDULER) == set(get_args(AnyMessage))


def test_only_operators_and_the_scheduler_direct():
    order = Direct(1, "gpu-1", 1, Load("chat"))
    check_allowed("ops", Role.OPERATOR, order)
    check_allowed("scheduler", Role.SCHEDULER, order)
    for role in (Role.CLIENT, Role.AGENT):
        with pytest.raises(NotAllowedError):
            check_allowed("x", role, order)


@pytest.mark.parametrize("agent", ["gpu-1", "gpu-1-cuda0"])
def test_an_agent_speaks_for_itself(agent: str):
    check_allowed("gpu-1", Role.AGENT, register(agent))
    check_allowed("gpu-1", Role.AGENT, Leave(agent, 1))


@pytest.mark.parametrize("agent", ["gpu-2", "gpu-10", "gpu", "gpu-1x"])
def test_an_agent_speaks_for_no_other(agent: str):
    with pytest.raises(NotAllowedError) as caught:
        check_allowed("gpu-1", Role.AGENT, register(agent))
    assert caught.value.field == "agent"


@given(st.sampled_from(list(Role)), st.text(max_size=5))
def test_everybody_may_ping(role: Role, name: str):
    check_allowed(name, role, Ping(1))


# The guard


def test_without_an_identity_there_is_no_guard():
    assert build_guard(SecurityConfig(), binds=True) is None


def test_a_process_that_admits_others_needs_the_folder(cluster: ClusterKeys):
    with pytest.raises(ConfigError, match="folder of keys"):
        build_guard(SecurityConfig(identity=cluster.identity("scheduler")), binds=True)


def test_only_admitted_keys_pass_a_handshake_of_our_domain(cluster: ClusterKeys):
    guard = build_guard(cluster.security(), binds=True)
    assert guard is not None
    alice = read_identity(Path(cluster.add("alice"))).public.public_key.encode()
    fresh = build_guard(cluster.security(), binds=True)
    assert fresh is not None
    assert fresh.callback(ZAP_DOMAIN, alice)
    assert not fresh.callback("other", alice)
    assert not fresh.callback(ZAP_DOMAIN, b"\xff" * 40)
    assert not Guard(read_identity(Path(cluster.identity("alice"))), None).callback(
        ZAP_DOMAIN, alice
    )


def test_each_message_is_checked_against_the_key_of_its_connection(cluster: ClusterKeys):
    agent = read_identity(Path(cluster.add("gpu-1", Role.AGENT))).public.public_key
    alice = read_identity(Path(cluster.add("alice"))).public.public_key
    guard = build_guard(cluster.security(), binds=True)
    assert guard is not None
    guard.check(agent, register("gpu-1", agent))
    guard.check(alice, SUBMIT)
    with pytest.raises(NotAllowedError, match="not its sender's"):
        guard.check(agent, register("gpu-1", alice))
    with pytest.raises(NotAllowedError):
        guard.check(alice, Summary("gpu-1", 1, None))  # type: ignore[arg-type]
    with pytest.raises(NotAllowedError, match="not admitted"):
        guard.check("x" * 40, GetCluster())
    with pytest.raises(NotAllowedError):
        guard.check(agent, Generate("r", "chat", 1, 1, 1, 0.0))


def test_the_folder_of_another_user_is_not_needed_to_be_a_client(cluster: ClusterKeys):
    path = cluster.add("alice")
    guard = build_guard(SecurityConfig(identity=path), binds=False)
    assert guard is not None
    assert guard.scheduler_key == read_identity(Path(cluster.identity("scheduler"))).scheduler_key
    assert os.path.samefile(path, cluster.identity("alice"))
