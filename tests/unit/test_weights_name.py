import pytest

from festina.engine.weights_name import PROFILE_NAME_MAX, profile_name, shape_name


@pytest.mark.parametrize(
    ("weights", "profile", "shape"),
    [
        ("smollm2-135m", "smollm2-135m", ""),
        ("sim:llama-8b", "llama-8b", "llama-8b"),
        ("random:llama-8b", "llama-8b", "llama-8b"),
        ("/models/chat.Q4_1.gguf", "chat.Q4_1", ""),
        ("/models/chat.safetensors", "chat", ""),
    ],
)
def test_a_shape_has_one_profile_whatever_its_weights_are_made_of(weights, profile, shape):
    assert (profile_name(weights), shape_name(weights)) == (profile, shape)


def test_a_long_name_keeps_its_end():
    assert profile_name("x" * 200 + "y") == "x" * (PROFILE_NAME_MAX - 1) + "y"
