"""Which endpoints are allowed."""

import pytest

from festina.errors import ConfigError
from festina.runtime.transport import check_endpoint


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://127.8.9.10:65535"])
def test_a_loopback_endpoint_is_taken_as_it_is(endpoint: str):
    assert check_endpoint(endpoint) == endpoint


def test_localhost_means_the_ipv4_loopback_address():
    assert check_endpoint("tcp://localhost:7000") == "tcp://127.0.0.1:7000"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "192.168.0.1", "gpu-1", "example.org", "127.0.0.1.nip.io"]
)
def test_an_endpoint_that_others_can_reach_is_refused(host: str):
    with pytest.raises(ConfigError, match="keys") as caught:
        check_endpoint(f"tcp://{host}:7000", field="scheduler.endpoint")
    assert caught.value.field == "scheduler.endpoint"


@pytest.mark.parametrize(
    "endpoint",
    ["", "7000", "127.0.0.1:7000", "ipc:///tmp/x", "tcp://127.0.0.1", "tcp://127.0.0.1:99999"],
)
def test_something_that_is_no_tcp_endpoint_is_refused(endpoint: str):
    with pytest.raises(ConfigError, match="not an endpoint"):
        check_endpoint(endpoint)
