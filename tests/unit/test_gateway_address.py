import pytest

from festina.config import GatewayConfig
from festina.errors import ConfigError
from festina.gateway.address import checked_address, listen, parse_address
from festina.gateway.keys import ApiKeys, read_keys

KEY = "a-key-of-sixteen-or-more"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("localhost:0", "http://127.0.0.1:0"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_a_host_and_a_port(text, url):
    assert parse_address(text).url == url


@pytest.mark.parametrize(
    "text", ["", "8000", ":8000", "host.example:1", "::1:80", "[::1]", "127.0.0.1:65536", "1.2.3:4"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.field == "gateway.http"


@pytest.mark.parametrize("http", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"])
def test_other_machines_are_served_with_keys_only(http):
    with pytest.raises(ConfigError, match="asks for no key"):
        checked_address(GatewayConfig(http=http))
    assert checked_address(GatewayConfig(http=http, keys_file="keys")).port == 1


def test_a_port_in_use_is_refused():
    with listen(parse_address("127.0.0.1:0")) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match="cannot listen"):
            listen(parse_address(f"127.0.0.1:{port}"))


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n  {KEY}  \n")
    keys = read_keys(str(path))
    assert keys
    keys.check(f"Bearer {KEY}".encode())
    assert not read_keys("")


@pytest.mark.parametrize(
    "text", ["", "# none\n", "short\n", "has spaces between words\n", "\xe9" * 20]
)
def test_a_file_without_good_keys_is_refused_without_showing_them(tmp_path, text):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_keys(str(path))
    assert caught.value.field == "gateway.keys_file"
    assert "short\n" not in str(caught.value)


def test_no_file_no_keys(tmp_path):
    with pytest.raises(ConfigError):
        read_keys(str(tmp_path / "absent"))


def test_the_keys_themselves_are_not_kept():
    assert KEY not in repr(vars(ApiKeys([KEY])))
