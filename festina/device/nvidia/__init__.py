"""NVIDIA GPUs: sensors and clocks through NVML, which is touched in `nvml.py` alone."""
