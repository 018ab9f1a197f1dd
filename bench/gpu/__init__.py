"""What the GPU path does on a real GPU: `python -m bench.gpu --out bench/results/`."""
