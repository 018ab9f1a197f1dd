#!/usr/bin/env bash
# Everything that needs a GPU, in one command: tools/gpu_check.sh [OUT]
#   tests/gpu, the same under compute-sanitizer (memcheck, racecheck, initcheck), the benches and a
#   quick profile. Goes on after failures; ends with what failed and what it could not run, and with
#   1 if anything did or was. OUT (default build/gpu-check) gets logs, results and the profile.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu-check}
bin=${VENV:-.venv}/bin
device=${DEVICE:-0}
shape=${SHAPE:-llama-3b}
mkdir -p "$out"
failed=()
skipped=()

# run NAME COMMAND…: its output goes to a log, its end to the summary.
run() {
  local name=$1
  shift
  echo "== $name: $*"
  if "$@" >"$out/$name.log" 2>&1; then
    echo "   passed"
  else
    echo "   FAILED with $?: $out/$name.log"
    tail -n 5 "$out/$name.log" | sed 's/^/   | /'
    failed+=("$name")
  fi
}

skip() {
  echo "== $1: not run: $2"
  skipped+=("$1 ($2)")
}

has_gpu() {
  "$bin/python" -c 'import sys
from festina.device.nvidia.opening import cuda_device_count
from festina.errors import DeviceError
try:
    sys.exit(cuda_device_count() <= int(sys.argv[1]))
except DeviceError as error:
    sys.exit(str(error))' "$device" 2>"$out/gpu.log"
}

"$bin/festina" env >"$out/env.txt" 2>&1 || true
if ! has_gpu; then
  echo "no GPU cuda:$device: $(tail -n 1 "$out/gpu.log")" >&2
  echo "not run: tests/gpu, compute-sanitizer, bench.gpu, festina profile" >&2
  exit 1
fi

if ! "$bin/python" -c 'from festina.engine.cuda.extras import require_kernels; require_kernels()' \
  2>>"$out/gpu.log"; then
  skip kernels "festina was built without its CUDA kernels: install it where nvcc is found"
fi
run tests "$bin/pytest" -q tests/gpu
sanitizer=${SANITIZER:-$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)}
for tool in memcheck racecheck initcheck; do
  if [[ -x $sanitizer ]]; then
    # Memory pools hide what is out of bounds of one tensor but inside of the pool. Without them
    # PyTorch captures no graphs, so the tests run the same steps eagerly.
    run "$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      --target-processes all "$bin/python" -m pytest -q --timeout 0 tests/gpu
  else
    skip "$tool" "no compute-sanitizer at $sanitizer"
  fi
done
if "$bin/python" -c 'import torch' 2>/dev/null; then
  run bench "$bin/python" -m bench.gpu --device "$device" --out "$out/results"
  run profile "$bin/festina" profile --device "cuda:$device" --model "$shape" --quick --out "$out/profiles"
else
  skip "tests of the engine" "PyTorch is not installed: pip install 'festina[gpu]'"
  skip bench "PyTorch is not installed: pip install 'festina[gpu]'"
  skip profile "PyTorch is not installed: pip install 'festina[gpu]'"
fi

echo
echo "failed: ${failed[*]:-nothing}"
if ((${#skipped[@]})); then
  printf 'not run: %s\n' "${skipped[@]}"
fi
((${#failed[@]} + ${#skipped[@]} == 0))
