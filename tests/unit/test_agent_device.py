"""An agent's device and its profile must belong together."""

import pytest

from festina.config import Config
from festina.control.profile import shipped_profiles
from festina.errors import ProfileError
from festina.runtime.agent_device import build

KIND = "H100-SXM5-80GB"


def profiles_without(folder, column, value):
    """A copy of a shipped profile that lacks the rows with this value."""
    lines = (shipped_profiles() / KIND / "llama-8b.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.split(",")[column : column + 1] != [value]]
    (folder / KIND).mkdir()
    (folder / KIND / "llama-8b.csv").write_text("".join(kept))
    return Config(profiles=str(folder))


def test_a_shipped_profile_fits_its_device():
    assert build(f"sim:{KIND}", Config(), 0.0).clocks is not None


@pytest.mark.parametrize(
    ("column", "value", "field"), [(2, "1980", "clock_mhz"), (1, "132", "sms")]
)
def test_a_profile_without_what_the_device_runs_at_is_refused(tmp_path, column, value, field):
    config = profiles_without(tmp_path, column, value)
    with pytest.raises(ProfileError) as caught:
        build(f"sim:{KIND}", config, 0.0)
    assert caught.value.field == field
