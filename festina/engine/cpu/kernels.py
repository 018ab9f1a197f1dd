"""Choice of kernels: native ones of an instruction set, or numpy.

The native form (`csrc/core/cpu_kernels`) works directly on the quantised blocks of a GGUF file and
computes without the GIL; a value never depends on what else is in the batch, so a request gets the
same tokens alone and in company. The numpy form is its oracle in tests, and the fallback that
`isa="numpy"` names. The contract of both is in `kernel_types`.
"""

from __future__ import annotations

from festina import _core
from festina.engine.cpu.kernel_types import Decoder, DecoderShape, DecoderWeights, Floats, Kernels
from festina.errors import ConfigError


def available_isas() -> tuple[str, ...]:
    """Names that `make_kernels` and `make_decoder` accept here, best first."""
    return (*_core.cpu_isas(), "numpy")


def make_kernels(isa: str = "") -> Kernels:
    """Kernels of an instruction set; "" takes the best.

    Raises:
        ConfigError: This machine or build has no such kernels.
    """
    _check_isa(isa)
    if isa == "numpy":
        from festina.engine.cpu.numpy_kernels import NumpyKernels  # `gguf` takes 100 ms

        return NumpyKernels()
    return _core.CpuKernels(isa)


def make_decoder(
    isa: str, shape: DecoderShape, weights: DecoderWeights, keys: Floats, values: Floats
) -> Decoder:
    """A decoder over weights and a KV pool, which it keeps alive and does not copy.

    Args:
        isa: As in `make_kernels`.
        shape: Sizes.
        weights: One layer per layer of the pool.
        keys: The pool's keys, as in `kernel_types`.
        values: The pool's values.

    Raises:
        ConfigError: This machine or build has no kernels for `isa`.
        EngineError: Shapes do not fit each other; the error names the weight.
    """
    _check_isa(isa)
    if isa == "numpy":
        from festina.engine.cpu.numpy_kernels import NumpyDecoder

        return NumpyDecoder(shape, weights, keys, values)
    return _core.CpuDecoder(isa, shape, weights, keys, values)


def _check_isa(isa: str) -> None:
    names = available_isas()
    if isa and isa not in names:
        raise ConfigError(f"no kernels for {isa!r}", field="engine.isa", expected=", ".join(names))
