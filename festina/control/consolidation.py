"""Which GPUs are needed at all (DESIGN 4.3): what to empty and park, what to wake. Pure.

The rules are native (`csrc/core/consolidation`) and the simulator's own. `festina`: a GPU is
emptied when the power saved over the expected valley is worth more than the moves, the reloads, the
wake and the risk that the load does not stay low; models are packed by memory and time at once; a
GPU is woken when the load of late no longer fits the awake ones, in time or in memory. `paper`
(arXiv 2606.30391, section 3.5.2): when fewer GPUs would hold all models by their demands of the
window, they move together.

Neither form changes a GPU that is not settled, which keeps it from oscillating.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from festina import _core
from festina.control.clock import SWITCH_MS, ClockRules
from festina.control.profile import ProfileTable

GPU = _core.ConsolidationPlanner.gpu_dtype
RESIDENT = _core.ConsolidationPlanner.resident_dtype
DEMAND = _core.ConsolidationPlanner.demand_dtype
PACKED = 0.85
"""Share of memory that weights of several sizes fill, on the mean."""
HARD_PROMPT = 2.0
"""A prompt that must be in time, as a multiple of the mean one: summaries tell no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationRules:
    """What the rules go by.

    Attributes:
        horizon_s: How long a low load is expected to last, at most.
        least_w: A smaller saving is not worth the trouble.
        rare: Requests over the horizon below which an idle model's weights may go.
        targets: GPUs that are priced for each model, those it fits best.
        examined: GPUs that are priced, those with the least to move.
        drains: GPUs that are emptied at once, at most.
        late_j: What a late request is taken to cost.
        window_s: Paper: length of the window that demands are means of.
        reserve: Paper: share of SMs and memory that is not packed.
        peer_bytes_per_s: Between GPUs.
        byte_j: Of a byte that is moved or loaded.
        switch_ms: From asking for a clock until it holds.
        clock: When which clock is right.
    """

    horizon_s: float = 300.0
    least_w: float = 1.0
    rare: float = 0.2
    targets: int = 4
    examined: int = 64
    drains: int = 1
    late_j: float = 100.0
    window_s: float = 300.0
    reserve: float = 0.05
    peer_bytes_per_s: float = 50e9
    byte_j: float = 60e-12
    switch_ms: float = SWITCH_MS
    clock: ClockRules = field(default_factory=ClockRules)

    def native(self) -> dict[str, object]:
        """As the native rules take them."""
        return {
            "horizon_ms": self.horizon_s * 1e3,
            "least_w": self.least_w,
            "rare": self.rare,
            "targets": self.targets,
            "examined": self.examined,
            "drains": self.drains,
            "late_j": self.late_j,
            "window_ms": self.window_s * 1e3,
            "reserve": self.reserve,
            "peer_bytes_per_s": self.peer_bytes_per_s,
            "byte_j": self.byte_j,
            "switch_ms": self.switch_ms,
            "margin": self.clock.margin,
            "utilisation": self.clock.utilisation,
            "memory_ms": self.clock.memory_ms,
        }


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A deployment.

    Attributes:
        name: Its name.
        profile: Model of the profiles that it runs.
        kv_tokens: Size of its KV pool on every GPU that holds it.
        ttft_ms: Objective.
        tbt_ms: Objective.
    """

    name: str
    profile: str
    kv_tokens: int
    ttft_ms: float
    tbt_ms: float


@dataclass(frozen=True, slots=True)
class ModelOnGpu:
    """One deployment on one GPU, its weights there or on their way.

    Attributes:
        model: Deployment name.
        running: Requests in decode.
        waiting: Requests before it.
        context_tokens: Of the running ones, in all.
        tbt_ms: Tightest objective of them; inf where there are none.
        prompts_per_s: That came here of late.
        prompt_tokens: Of each, on the mean.
    """

    model: str
    running: int = 0
    waiting: int = 0
    context_tokens: float = 0.0
    tbt_ms: float = float("inf")
    prompts_per_s: float = 0.0
    prompt_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class GpuNow:
    """One GPU.

    Attributes:
        name: Its agent.
        kind: Key of the profiles.
        sms_total: Its SMs.
        clock_mhz: Asked for last.
        clocks_mhz: That it can be set to, ascending; empty where clocks cannot be set.
        memory_bytes: Its memory.
        free_bytes: For further weights; idle models would make way for them.
        parked: It holds no context.
        open: Awake, and not being emptied.
        settled: It has been awake, or parked, long enough to change that.
        loading: Weights are on their way to it.
        models: What it holds.
    """

    name: str
    kind: str
    sms_total: int
    clock_mhz: int
    clocks_mhz: tuple[int, ...]
    memory_bytes: int
    free_bytes: float
    parked: bool = False
    open: bool = True
    settled: bool = True
    loading: bool = False
    models: tuple[ModelOnGpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """What was asked of one deployment within the window, on the mean.

    Attributes:
        per_s: Requests.
        input_tokens: Of each.
        output_tokens: Of each.
    """

    per_s: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Empty:
    """Empty a GPU and park it.

    Attributes:
        gpu: Which.
        moves: Where each model goes that is in use there: (deployment, GPU).
        saved_w: Power that is saved while it is parked, the others' clocks counted.
        valley_s: How long that is expected to last.
        wake_j: Waking it afterwards.
        moves_j: Moving there and, some time, back.
        risk_j: If the load does not stay low.
    """

    gpu: str
    moves: tuple[tuple[str, str], ...]
    saved_w: float = 0.0
    valley_s: float = 0.0
    wake_j: float = 0.0
    moves_j: float = 0.0
    risk_j: float = 0.0

    @property
    def gain_j(self) -> float:
        """Joules that are expected to be saved in all."""
        return self.saved_w * self.valley_s - self.wake_j - self.moves_j - self.risk_j

    @property
    def why(self) -> str:
        """In a line."""
        return (
            f"{self.saved_w:.1f} W for {self.valley_s:.0f} s, less {self.wake_j:.0f} J wake, "
            f"{self.moves_j:.0f} J moves, {self.risk_j:.0f} J risk"
        )


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Wake a GPU.

    Attributes:
        gpu: Which.
        overloaded: The GPU that has more to do than it can do in time; "" where memory lacks.
    """

    gpu: str
    overloaded: str

    @property
    def why(self) -> str:
        """In a line."""
        if not self.overloaded:
            return "the models asked for of late do not fit the memory of the GPUs that are awake"
        return f"the load of late is too much for {self.overloaded}"


class ConsolidationPlanner:
    """Plans for clusters of known kinds of GPUs. Decides by what it is told and remembers nothing.

    Args:
        profiles: By kind of GPU.
        models: The deployments.
        rules: What it goes by.

    Raises:
        BadRequestError: A rule is out of range.
    """

    def __init__(
        self,
        profiles: Mapping[str, ProfileTable],
        models: Sequence[ModelKind],
        rules: ConsolidationRules | None = None,
    ) -> None:
        self.rules = rules or ConsolidationRules()
        self._profiles = profiles
        self._kinds = {kind: number for number, kind in enumerate(profiles)}
        self._models = tuple(models)
        self._numbers = {model.name: number for number, model in enumerate(models)}
        self._bytes = {model.name: _bytes_of(model, profiles) for model in models}
        self._native = _core.ConsolidationPlanner(
            [table.native for table in profiles.values()],
            [(model.profile, float(model.kv_tokens)) for model in models],
            self.rules.native(),
        )

    def empty(
        self,
        gpus: Sequence[GpuNow],
        growth_per_s: float = 0.0,
        wanted: Collection[str] = (),
    ) -> tuple[Empty, ...]:
        """`festina`: the GPUs to empty now, the best first; none where nothing is gained.

        Those that stay have memory for every deployment that was asked for of late, resident or
        not: else each of them would be loaded anew for each of its requests.

        Args:
            gpus: All of them.
            growth_per_s: By which share of itself the load grows.
            wanted: Deployments that were asked for of late.

        Raises:
            BadRequestError: A figure is out of range.
        """
        known = [gpu for gpu in gpus if gpu.kind in self._kinds]
        spare = self._spare_bytes(known, wanted)
        rooms = {gpu.name: _room_bytes(gpu) for gpu in known}
        known = [gpu if rooms[gpu.name] <= spare else replace(gpu, settled=False) for gpu in known]
        chosen: list[Empty] = []
        for one in self._drains(known, growth_per_s):
            if rooms[one.gpu] <= spare:  # what an earlier one has left of it
                spare -= rooms[one.gpu]
                chosen.append(one)
        return tuple(chosen)

    def _drains(self, known: Sequence[GpuNow], growth_per_s: float) -> Iterator[Empty]:
        found = self._native.drains(
            self._gpu_rows(known), self._resident_rows(known), growth_per_s / 1e3
        )
        for drain in found:
            yield Empty(
                known[drain.gpu].name,
                tuple((self._models[model].name, known[to].name) for model, to in drain.moves),
                drain.saved_w,
                drain.valley_ms / 1e3,
                drain.wake_j,
                drain.moves_j,
                drain.risk_j,
            )

    def wake(self, gpus: Sequence[GpuNow], wanted: Collection[str] = ()) -> WakeUp | None:
        """The parked, settled GPU to wake for the load of late; None where none is needed.

        Args:
            gpus: All of them.
            wanted: Deployments that were asked for of late.

        Raises:
            BadRequestError: A figure is out of range.
        """
        known = [gpu for gpu in gpus if gpu.kind in self._kinds]
        found = self._native.wake(self._gpu_rows(known), self._resident_rows(known))
        if found is not None:
            return WakeUp(known[found[0]].name, known[found[1]].name)
        if self._spare_bytes(known, wanted) >= 0.0:
            return None
        asleep = [gpu for gpu in known if gpu.parked and gpu.settled]
        return WakeUp(asleep[0].name, "") if asleep else None

    def _spare_bytes(self, gpus: Sequence[GpuNow], wanted: Collection[str]) -> float:
        """Memory of the GPUs that take work, less what is asked for of late or in use."""
        in_use = {m.model for gpu in gpus for m in gpu.models if m.running or m.waiting}
        names = (in_use | set(wanted)) & self._numbers.keys()
        held = sum(self._bytes[name] for name in names)
        return sum(_room_bytes(gpu) for gpu in gpus if gpu.open) - held

    def paper(self, gpus: Sequence[GpuNow], demands: Mapping[str, Demand]) -> tuple[Empty, ...]:
        """`paper`: the GPUs that are not needed, and where models belong; none if all are.

        GPUs of the most frequent kind are looked at, for the rule knows one kind.

        Raises:
            BadRequestError: A figure is out of range.
        """
        awake = [gpu for gpu in gpus if gpu.kind in self._kinds and gpu.open]
        kinds = [gpu.kind for gpu in awake]
        known = [gpu for gpu in awake if gpu.kind == max(kinds, key=kinds.count)]
        if not known:
            return ()
        rows = np.array([self._demand(model, demands) for model in self._models], DEMAND)
        active = list(range(len(known)))
        memory_bytes = float(min(gpu.memory_bytes for gpu in known))
        found = self._native.paper(
            self._gpu_rows(known), self._resident_rows(known), rows, active, memory_bytes
        )
        if found is None:
            return ()
        belongs = {self._models[model].name: known[gpu].name for model, gpu in found[0]}
        return tuple(self._emptied(known[gpu], belongs) for gpu in found[1] if known[gpu].settled)

    def _emptied(self, gpu: GpuNow, belongs: Mapping[str, str]) -> Empty:
        table = self._profiles[gpu.kind]
        idle_w = table.idle_w(min(table.clocks_mhz, key=lambda clock: abs(clock - gpu.clock_mhz)))
        info = table.model_info(table.models[0])
        moves = tuple((m.model, belongs[m.model]) for m in gpu.models if m.model in belongs)
        wake_j = idle_w * info.wake_ms / 1e3
        return Empty(gpu.name, moves, idle_w - info.parked_w, self.rules.horizon_s, wake_j)

    def _demand(self, model: ModelKind, demands: Mapping[str, Demand]) -> tuple[float, ...]:
        demand = demands.get(model.name)
        if demand is None or demand.per_s <= 0.0:
            return (0.0, 0.0, 0.0, model.ttft_ms, model.tbt_ms)
        outputs = max(demand.output_tokens, 1.0)
        return (demand.per_s / 1e3, demand.input_tokens, outputs, model.ttft_ms, model.tbt_ms)

    def _gpu_rows(self, gpus: Sequence[GpuNow]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        return np.array([self._gpu_row(gpu) for gpu in gpus], GPU)

    def _gpu_row(self, gpu: GpuNow) -> tuple[float, ...]:
        settable = gpu.clocks_mhz or (gpu.clock_mhz,)
        return (
            self._kinds[gpu.kind],
            gpu.sms_total,
            gpu.clock_mhz,
            settable[0],
            settable[-1],
            sum(model.running + model.waiting for model in gpu.models),
            gpu.free_bytes,
            not gpu.parked,
            gpu.open,
            gpu.parked,
            gpu.settled,
            gpu.loading,
        )

    def _resident_rows(self, gpus: Sequence[GpuNow]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        rows = [
            self._resident_row(number, model)
            for number, gpu in enumerate(gpus)
            for model in gpu.models
            if model.model in self._numbers
        ]
        return np.array(rows, RESIDENT)

    def _resident_row(self, gpu: int, on: ModelOnGpu) -> tuple[float, ...]:
        number = self._numbers[on.model]
        model = self._models[number]
        return (
            gpu,
            number,
            on.running,
            round(HARD_PROMPT * on.prompt_tokens),
            on.context_tokens / max(on.running, 1),
            min(on.tbt_ms, model.tbt_ms) if on.running else model.tbt_ms,
            on.prompts_per_s / 1e3,
            on.prompt_tokens,
            model.ttft_ms,
            not (on.running or on.waiting),
        )


def _room_bytes(gpu: GpuNow) -> float:
    return gpu.memory_bytes * PACKED


def _bytes_of(model: ModelKind, profiles: Mapping[str, ProfileTable]) -> float:
    """Weights and KV pool; 0 where no GPU could run it."""
    infos = [t.model_info(model.profile) for t in profiles.values() if model.profile in t.models]
    return max((i.weight_bytes + model.kv_tokens * i.kv_bytes_per_token for i in infos), default=0)
