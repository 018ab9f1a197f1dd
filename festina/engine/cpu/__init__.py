"""A Llama-class decoder on the CPU, read straight from GGUF."""

from collections.abc import Mapping
from types import MappingProxyType

COMPUTE_ENV: Mapping[str, str] = MappingProxyType(
    {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
)
"""Environment that a process with a CPU engine must start with: one compute thread per process.

BLAS reads it when numpy is imported, so it must be set by whoever starts the process. Two processes
whose BLAS pools spin on the same cores take tens of times longer per step.
"""
