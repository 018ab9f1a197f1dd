"""What the GPU engine needs and is not there is one typed error that says what to do."""

import importlib.util
from types import SimpleNamespace

import pytest

from festina.engine.cuda import extras
from festina.errors import UnsupportedEngineError


def test_a_missing_pytorch_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedEngineError) as caught:
        extras.require_torch()
    assert caught.value.field == "gpus"
    assert caught.value.expected == "pip install 'festina[gpu]'"


def test_an_installed_pytorch_is_enough(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    extras.require_torch()


def test_a_build_without_kernels_names_nvcc(monkeypatch):
    monkeypatch.setattr(extras, "_core", SimpleNamespace())
    with pytest.raises(UnsupportedEngineError) as caught:
        extras.require_kernels()
    assert "nvcc" in caught.value.expected


def test_a_build_with_kernels_is_enough(monkeypatch):
    monkeypatch.setattr(extras, "_core", SimpleNamespace(paged_attention_device=None))
    extras.require_kernels()
