"""Global placement: which GPU a request runs on (DESIGN 4.1, paper section 3.3).

The decision is native (`csrc/core/placement`): one call scans all GPUs. Summaries and reservations
are packed when they come, so that placing reads no profile per GPU.

Both forms take a GPU only if the request *and all its co-residents* would meet their objectives
there, and both fall back alike: when no GPU meets the objectives now but an idle one would, the
request is placed where it will be least late (`Placement.on_time` is False), since waiting in a
queue serves a user better than a refusal. It is refused only when the objectives are beyond every
GPU (`InfeasibleError`) or all queues are full (`OverloadedError`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from festina import _core
from festina.control.profile import ProfileTable
from festina.errors import UnknownModelError
from festina.types import GpuSummary, Slo

Placement = _core.Placement
"""Where a request should run.

Attributes:
    slot: The GPU.
    action: "run" at once, or first "load" the weights, or "wake" the GPU and load them.
    on_time: Whether the objectives are predicted to hold.
    clock_mhz: Clock that the prediction supposes.
    ttft_ms: Time to first token from now; an upper estimate, with the profile's spread on top.
    tbt_ms: Time between tokens, likewise.
    energy_j: Joules that the cluster draws more for taking the request.
"""


class Improvements(msgspec.Struct, frozen=True, kw_only=True):
    """What the `festina` form does beyond the paper; each can be switched off alone.

    Attributes:
        marginal_energy: Charge what the cluster draws more; else the whole device's power.
        batch_aware: Read the profile at the batch the request joins; else at batch 1.
        interference: Count co-residents' steps into TTFT and TBT.
        raise_clock: Consider higher clocks where the present one is too slow.
        charge_raise: Charge co-residents' and idle power at a raised clock to the request.
        spread_margin: Add the profile's own error to every latency.
    """

    marginal_energy: bool = True
    batch_aware: bool = True
    interference: bool = True
    raise_clock: bool = True
    charge_raise: bool = True
    spread_margin: bool = True


ALL_IMPROVEMENTS = Improvements()


class ClusterView:
    """The scheduler's picture of the cluster, and where it places requests.

    Used by one thread. Holds nothing that summaries cannot rebuild.

    Args:
        profiles: The profile of each device kind.
        policy: "festina": least marginal joules. "paper": least Power x Latency, as published.
        margin: Share of each objective kept in reserve, in [0, 1).
        reservation_s: How long a reservation counts if its ticket never shows up.
        queue_max: Requests waiting on one GPU before it takes no more.
        retry_after_ms: Least advice to refused clients.
        wake_stay_s: How long a woken GPU is expected to stay awake; its idle power over that time
            is charged to the request that wakes it.
        improvements: Switches of the `festina` form.

    Raises:
        BadRequestError: A setting is out of range.
    """

    def __init__(
        self,
        profiles: Mapping[str, ProfileTable],
        policy: Literal["festina", "paper"] = "festina",
        margin: float = 0.05,
        *,
        reservation_s: float = 2.0,
        queue_max: int = 512,
        retry_after_ms: int = 500,
        wake_stay_s: float = 60.0,
        improvements: Improvements = ALL_IMPROVEMENTS,
    ) -> None:
        settings: dict[str, object] = {
            "policy": policy,
            "margin": margin,
            "reservation_s": reservation_s,
            "queue_max": queue_max,
            "retry_after_ms": retry_after_ms,
            "wake_stay_s": wake_stay_s,
            **msgspec.structs.asdict(improvements),
        }
        tables = [(kind, profile.native) for kind, profile in profiles.items()]
        self._view = _core.ClusterView(tables, settings)
        self._models: dict[str, int] = {}

    def add_model(self, name: str, profile_model: str, slo: Slo, context_tokens: int) -> int:
        """Registers a deployment.

        Args:
            name: Deployment name, as requests and summaries give it.
            profile_model: Model of the profiles that it runs.
            slo: Objectives of its requests, where a summary or reservation tells no others.
            context_tokens: Longest prompt plus output.

        Returns:
            The deployment's number.

        Raises:
            BadRequestError: The name is taken, or a figure is out of range.
            UnknownModelError: No profile has the model.
        """
        number = self._view.add_model(name, profile_model, slo.ttft_ms, slo.tbt_ms, context_tokens)
        self._models[name] = number
        return number

    def add_gpu(
        self,
        name: str,
        device_kind: str,
        sms_total: int,
        clocks_mhz: Sequence[int],
        memory_bytes: int,
        models: Iterable[str],
    ) -> int:
        """Registers a GPU; it takes requests from its first summary on.

        Args:
            name: For people.
            device_kind: Key of `profiles`.
            sms_total: Its SMs.
            clocks_mhz: Clocks it can be set to; empty where clocks cannot be set.
            memory_bytes: Its memory; deployments whose weights exceed it are never placed there.
            models: Deployments it may host.

        Returns:
            Its slot. Slots of removed GPUs are used again.

        Raises:
            BadRequestError: There is no profile of this kind, or a figure is out of range.
            UnknownModelError: A deployment is not registered.
        """
        numbers = [self._number(model) for model in models]
        return self._view.add_gpu(
            name, device_kind, sms_total, list(clocks_mhz), memory_bytes, numbers
        )

    def remove_gpu(self, slot: int) -> None:
        """Forgets a GPU and what is reserved on it.

        Raises:
            BadRequestError: The slot is not in use.
        """
        self._view.remove_gpu(slot)

    def update(self, slot: int, summary: GpuSummary) -> None:
        """Takes the newest summary of a GPU; releases the reservations whose tickets it names.

        Raises:
            BadRequestError: The slot is not in use, or a figure is out of range.
            UnknownModelError: The summary names a deployment that is not registered.
        """
        self._view.update(slot, summary)

    def place(
        self,
        model: str,
        input_tokens: int,
        max_tokens: int,
        slo: Slo,
        exclude: Sequence[int] = (),
    ) -> Placement:
        """Where the request should run.

        Args:
            model: Deployment name.
            input_tokens: Prompt length, > 0.
            max_tokens: Output that is expected, or its bound, > 0.
            slo: Objectives, from now on.
            exclude: Slots not to use.

        Raises:
            BadRequestError: A figure is out of range.
            UnknownModelError: The deployment is not registered.
            ContextLimitError: Prompt plus output exceed the deployment's context.
            InfeasibleError: No GPU could meet the objectives, even when idle.
            OverloadedError: No GPU takes it now: all queues are full, or there is no GPU.
        """
        return self._view.place(
            self._number(model), input_tokens, max_tokens, slo.ttft_ms, slo.tbt_ms, exclude
        )

    def reserve(
        self,
        slot: int,
        ticket: int,
        model: str,
        input_tokens: int,
        now: float,
        max_tokens: int = 0,
    ) -> None:
        """Counts a placement against its GPU until a summary names the ticket, or it expires.

        Args:
            slot: Where the request was placed.
            ticket: `Placed.ticket`.
            model: Deployment name.
            input_tokens: Prompt length, > 0.
            now: Monotonic time in seconds; must not go back between calls.
            max_tokens: Output whose KV cache is kept free for it.

        Raises:
            BadRequestError: The slot is not in use or has sent no summary, or a figure is wrong.
            UnknownModelError: The deployment is not registered.
        """
        self._view.reserve(
            slot, ticket, self._number(model), input_tokens, max_tokens, now * 1000.0
        )

    def expire(self, now: float) -> int:
        """Forgets the reservations that are due; returns how many."""
        return self._view.expire(now * 1000.0)

    def reserved(self, slot: int) -> int:
        """Reservations that count against the GPU now."""
        return self._view.reserved(slot)

    def _number(self, model: str) -> int:
        try:
            return self._models[model]
        except KeyError:
            raise UnknownModelError(
                f"no deployment is called {model!r}",
                field="model",
                expected="one of " + ", ".join(self._models) if self._models else "",
            ) from None
