"""Every error festina raises on purpose, and the form it takes on the wire.

An error names the field that was wrong and what was expected, so that the person or program at the
other end can mend it. Codes are stable; texts are for people.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True):
    """An error on the wire.

    Attributes:
        code: Stable identifier, the `code` of a `FestinaError` subclass.
        message: One sentence for a person.
        field: The offending field, dotted path, or "".
        expected: What would have been accepted, or "".
        retry_after_ms: For overload: when to try again; 0 where retrying cannot help.
    """

    code: str
    message: str
    field: str = ""
    expected: str = ""
    retry_after_ms: int = 0


class FestinaError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: One sentence for a person.
        field: Dotted path of the offending field.
        expected: What would have been accepted.
        retry_after_ms: When to try again, for overload.
    """

    code: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, field: str = "", expected: str = "", retry_after_ms: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.expected = expected
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        return f"{text} (expected {self.expected})" if self.expected else text

    def info(self) -> ErrorInfo:
        """This error as it travels."""
        return ErrorInfo(self.code, self.message, self.field, self.expected, self.retry_after_ms)


class BadRequestError(FestinaError):
    """A field of a request is missing, out of range or of the wrong kind."""

    code = "bad_request"


class UnknownModelError(FestinaError):
    """No deployment has this name."""

    code = "unknown_model"


class ContextLimitError(FestinaError):
    """Prompt plus output would not fit the model's context or the device's KV cache."""

    code = "context_limit"


class InfeasibleError(FestinaError):
    """No device of this cluster could meet the objectives, even when idle."""

    code = "infeasible"


class OverloadedError(FestinaError):
    """A bounded queue is full; `retry_after_ms` says when to try again."""

    code = "overloaded"


class NeededError(FestinaError):
    """A device that was to be emptied has been given work since: it is needed."""

    code = "needed"


class CancelledError(FestinaError):
    """The client cancelled the request, or vanished."""

    code = "cancelled"


class AgentLostError(FestinaError):
    """The agent that ran the request stopped answering."""

    code = "agent_lost"


class SchedulerLostError(FestinaError):
    """The scheduler did not answer in time."""

    code = "scheduler_lost"


class EngineError(FestinaError):
    """A model step failed; the requests of that step end with this error."""

    code = "engine"


class EngineLostError(EngineError):
    """The engine's process or device context is gone, and all that was resident in it."""

    code = "engine_lost"


class ProtocolError(FestinaError):
    """A frame is not a festina message."""

    code = "protocol"


class FrameTooLargeError(ProtocolError):
    """A frame is larger than its bound."""

    code = "frame_too_large"


class ProtocolVersionError(ProtocolError):
    """A frame speaks another version of the protocol."""

    code = "protocol_version"


class NotAllowedError(ProtocolError):
    """The sender's key is not admitted, or its role may not say this."""

    code = "not_allowed"


class ConfigError(FestinaError):
    """A setting is unknown or has a value that is not allowed."""

    code = "config"


class StartError(FestinaError):
    """A process of the cluster did not start, or not in time."""

    code = "start"


class SimulationError(FestinaError):
    """A simulation failed: a process of it, or a policy that asked for what no GPU can do."""

    code = "simulation"


class TraceError(FestinaError):
    """A trace cannot be written any more; what it tells of goes on without it."""

    code = "trace"


class ProfileError(FestinaError):
    """A profile file or table is truncated or inconsistent; `field` names row and column."""

    code = "profile"


class WeightsError(FestinaError):
    """A weights file is missing, truncated or inconsistent."""

    code = "weights"


class UnsupportedModelError(FestinaError):
    """The architecture or quantisation of a weights file is not implemented."""

    code = "unsupported_model"


class UnsupportedEngineError(FestinaError):
    """No engine of this version runs models on this kind of device."""

    code = "unsupported_engine"


class DeviceError(FestinaError):
    """A device is absent, or refused an operation."""

    code = "device"


class DevicePermissionError(DeviceError):
    """The operation needs privileges that this process lacks (setting clocks, say)."""

    code = "device_permission"


class DeviceLostError(DeviceError):
    """The device, or this process's context on it, is unusable; only a new process can go on."""

    code = "device_lost"


class StreamCapturedError(DeviceError):
    """The operation cannot be part of a CUDA graph, and its stream is being captured into one."""

    code = "stream_captured"


class DeviceUnsupportedError(DeviceError):
    """The device or its driver has no such function."""

    code = "device_unsupported"


def _subclasses(cls: type[FestinaError]) -> list[type[FestinaError]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _subclasses(child))]


_BY_CODE = {cls.code: cls for cls in _subclasses(FestinaError)}


def from_info(info: ErrorInfo) -> FestinaError:
    """The exception that `info` describes; an unknown code gives a plain `FestinaError`."""
    return _BY_CODE.get(info.code, FestinaError)(
        info.message,
        field=info.field,
        expected=info.expected,
        retry_after_ms=info.retry_after_ms,
    )
