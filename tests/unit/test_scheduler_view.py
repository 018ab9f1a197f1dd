"""What the scheduler reads before it listens: bad folders of profiles are told by name."""

import pytest

from festina.config import Config, DeploymentConfig
from festina.errors import ProfileError
from festina.runtime.view import build_view

DEPLOYMENTS = (DeploymentConfig(name="chat", weights="sim:llama-8b"),)


def test_a_folder_of_profiles_that_is_not_there_is_a_profile_error(tmp_path):
    with pytest.raises(ProfileError, match="nowhere"):
        build_view(Config(profiles=str(tmp_path / "nowhere"), deployments=DEPLOYMENTS))


@pytest.mark.parametrize("deployments", [(), DEPLOYMENTS])
def test_a_kind_without_profiles_is_a_profile_error(tmp_path, deployments):
    (tmp_path / "H100-SXM5-80GB").mkdir()
    with pytest.raises(ProfileError, match="H100-SXM5-80GB"):
        build_view(Config(profiles=str(tmp_path), deployments=deployments))
