"""Where copy engines begin to beat the copy kernel."""

import pytest

from festina.engine.kv_crossover import CrossoverPoint, crossing_bytes


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ((5.0, 12.0, 20.0), 8192),
        ((20.0, 20.0, 20.0), 4096),
        ((5.0, 5.0, 5.0), 32768),
        ((20.0, 5.0, 20.0), 16384),
        ((5.0, 10.0, 20.0), 8192),
    ],
    ids=["one crossing", "always", "never", "only the last stretch counts", "even is enough"],
)
def test_engines_are_used_from_where_they_are_never_slower(engine, expected):
    points = tuple(
        CrossoverPoint(size, 10.0, speed)
        for size, speed in zip((4096, 8192, 16384), engine, strict=True)
    )
    assert crossing_bytes(points) == expected
