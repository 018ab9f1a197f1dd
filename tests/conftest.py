"""Every test is in exactly one bucket: the folder it lives in, marked here and nowhere else."""

from pathlib import Path

import pytest

BUCKETS = ("unit", "integration", "simulation", "gpu")
ROOT = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        bucket = item.path.relative_to(ROOT).parts[0]
        if bucket not in BUCKETS:
            raise pytest.UsageError(f"{item.path}: expected a test under one of {BUCKETS}")
        item.add_marker(bucket)
