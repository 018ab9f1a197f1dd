#!/usr/bin/env bash
# Runs the native code under sanitizers: tools/sanitize.sh address|thread cpp|python
#   cpp     all C++ tests
#   python  the part of the Python suite that touches the native module, on a sanitized build of it
# address = ASan + UBSan, thread = TSan. Everything it makes is in build/sanitize-*.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
part=$2
bin="$PWD/${VENV:-.venv}/bin"
build="$PWD/build/sanitize-$kind"

# Tests of the native module, one pattern per part of it; a pattern may match nothing.
native_tests=(tests/unit/test_{profile,kv_copy,paged_attention,placement,operating_point,packing,cpu_kernels}*.py
  tests/unit/test_{kernels,decoder,local,solve}*.py tests/integration/test_profile_shared*.py
  tests/{unit,simulation}/test_simulator*.py tests/integration/test_{cuda_driver,green_context,kv_copy}*.py)

build_target() {
  "$bin/cmake" -S . -B "$build" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" \
    -DFESTINA_SANITIZE="$kind" -DFESTINA_CUDA=OFF -DFESTINA_WERROR=ON -DFESTINA_CPP_TESTS=ON \
    -DPython_EXECUTABLE="$bin/python" -DSKBUILD_PROJECT_VERSION=sanitized \
    -Dpybind11_DIR="$("$bin/python" -m pybind11 --cmakedir)" >/dev/null
  "$bin/cmake" --build "$build" --parallel 2 --target "$1"
}

case $kind in
  address) runtime=libasan.so ;;
  thread) runtime=libtsan.so ;;
  *) echo "$kind: expected address or thread" >&2; exit 2 ;;
esac
# Leaks of the interpreter are not ours; a finding must fail the run.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:report_signal_unsafe=0
# numpy's own threads are not instrumented: TSan would take their hand-over for a race.
export OPENBLAS_NUM_THREADS=1

case $part in
  cpp)
    build_target cpp_tests
    "$bin/ctest" --test-dir "$build" --output-on-failure
    ;;
  python)
    build_target _core
    "$bin/cmake" --install "$build" --prefix "$build/site" >/dev/null
    cp -r festina "$build/site/"
    # An environment that sees the packages of the first one, but not its festina.
    "$bin/python" -m venv --without-pip --clear "$build/venv"
    site() { "$1/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
    site "$bin" > "$(site "$build/venv/bin")/packages.pth"
    tests=()
    for test in "${native_tests[@]}"; do [[ -f $test ]] && tests+=("$test"); done
    preload="$(gcc -print-file-name=$runtime) $(gcc -print-file-name=libstdc++.so)"
    # -P: not the festina of this folder.
    LD_PRELOAD="$preload" PYTHONPATH="$build/site" FESTINA_SANITIZER="$kind" \
      "$build/venv/bin/python" -P -m pytest -q --capture=sys --timeout 900 -p no:cacheprovider tests/integration/test_cuda_driver.py tests/integration/test_green_context.py tests/integration/test_kv_copy_cuda.py tests/unit/test_profile_gpu.py
    ;;
  *) echo "$part: expected cpp or python" >&2; exit 2 ;;
esac
