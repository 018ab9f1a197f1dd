"""One frozen tree of settings. CLI flags, YAML, `FESTINA_*` variables and docs derive from it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from festina.types import Slo

Positive = Annotated[float, Meta(gt=0)]
PositiveInt = Annotated[int, Meta(gt=0, le=2**31 - 1)]
"""What native code and sockets take as an `int`."""
Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""The same, and 0."""
Fraction = Annotated[float, Meta(ge=0, le=1)]
Reserve = Annotated[float, Meta(ge=0, lt=1)]
"""A share that leaves something."""
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]


class DeploymentConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model under a name, with its objectives.

    Attributes:
        name: What requests ask for.
        weights: Name of a known model (`festina models list`), path of a GGUF file, or of a folder
            with safetensors files; `sim:` or `random:` and the name of a shape.
        slo: Objectives of requests that bring none.
        pace: 0 = as fast as possible, 1 = use all the slack (DESIGN 4.2).
        context_tokens: Longest prompt plus output; capped by the model's own limit.
        kv_tokens: Size of the KV pool on each device that hosts it.
        keep_alive_s: Unload after this long without a request; 0 = never.
        preload: Load at start instead of at the first request.
    """

    name: Name
    weights: str
    slo: Slo = Slo(ttft_ms=2000.0, tbt_ms=200.0)
    pace: Fraction = 0.5
    context_tokens: PositiveInt = 2048
    kv_tokens: PositiveInt = 16384
    keep_alive_s: Annotated[float, Meta(ge=0)] = 300.0
    preload: bool = False


class LinkConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of every socket.

    Attributes:
        heartbeat_s: Interval of heartbeats, both ways.
        missed_max: Heartbeats missed before the peer is taken for dead.
        queue_max: Messages queued per peer (ZMQ high-water mark).
        linger_ms: How long a closing socket may go on sending.
    """

    heartbeat_s: Positive = 0.5
    missed_max: PositiveInt = 6
    queue_max: Annotated[int, Meta(gt=0, le=1_000_000)] = 4096
    linger_ms: Annotated[int, Meta(ge=0, le=60_000)] = 200

    @property
    def silent_s(self) -> float:
        """Silence after which an agent is given nothing new: it may hang (two heartbeats)."""
        return self.heartbeat_s * min(2, self.missed_max)


class SchedulerConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The global scheduler.

    Attributes:
        endpoint: Where clients and agents connect; port 0 is chosen by the system.
        standby_endpoint: Where they reach a second scheduler that takes over when the first is
            gone; "" has none.
        policy: Placement rule: ours, or the paper's (DESIGN 4.1).
        margin: Share of an objective kept in reserve, on top of the profile's own error.
        reservation_s: How long a placement counts before its request shows up at the agent.
        retry_after_ms: What refused clients are told, at least.
    """

    endpoint: str = "tcp://127.0.0.1:7000"
    standby_endpoint: str = ""
    policy: Literal["festina", "paper"] = "festina"
    margin: Reserve = 0.05
    reservation_s: Positive = 2.0
    retry_after_ms: PositiveInt = 500


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One agent.

    Attributes:
        endpoint: Where clients connect; port 0 is chosen by the system.
        advertise: Host that they are told, for an agent that listens at 0.0.0.0; "" tells the host
            of `endpoint`.
        policy: Local rule: ours, or the paper's (DESIGN 4.2).
        set_clocks: Choose the device's clock where this process may; off leaves it to the driver.
        summary_hz: Summaries a second, 10-50; fewer where a scheduler of many agents asks for it.
        batch_max: Sequences in one step; 0 = 32 on a CPU, 256 on a GPU.
        chunk_tokens: Prefill tokens in one step; 0 = 128 on a CPU, 2048 on a GPU.
        graphs_max: CUDA graphs of decode steps that a model may have on a GPU, one for each SM
            partition and batch size (13 sizes up to 256); other decode steps run eagerly.
        graphs_ahead: They are captured while the model is loaded; else when a step first needs
            them.
        waiting_max: Requests queued before new ones are refused.
        beta: Weight of age in the paper's score, for prefill (paper section 3.4).
        margin: Share of an objective kept in reserve.
        client_timeout_s: Silence after which a client is taken for gone and its requests freed.
        host_engine: Where models run: in a child `process` that can be parked and replaced, or
            `inline` in the agent; `auto` is `process` on real devices, `inline` on simulated ones.
        hot_share: Share of the machine's memory in which each agent keeps weights while its engine
            is parked.
        step_timeout_s: A step that takes longer, and much longer than predicted, is given up and
            its process replaced.
        load_timeout_s: The same for a load and for the start of that process.
        engine_failures_max: Losses of the engine within `engine_window_s` after which the agent
            leaves the cluster.
        engine_window_s: See `engine_failures_max`.
        moves_max: Requests that move to other agents at a time.
    """

    endpoint: str = "tcp://127.0.0.1:0"
    advertise: Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    policy: Literal["festina", "paper"] = "festina"
    set_clocks: bool = True
    summary_hz: Annotated[float, Meta(ge=1, le=100)] = 20.0
    batch_max: Natural = 0
    chunk_tokens: Natural = 0
    graphs_max: Natural = 13
    graphs_ahead: bool = True
    waiting_max: PositiveInt = 512
    beta: Fraction = 1.0
    margin: Reserve = 0.1
    client_timeout_s: Positive = 5.0
    host_engine: Literal["auto", "process", "inline"] = "auto"
    hot_share: Fraction = 0.1
    step_timeout_s: Positive = 10.0
    load_timeout_s: Positive = 300.0
    engine_failures_max: PositiveInt = 5
    engine_window_s: Positive = 60.0
    moves_max: PositiveInt = 4


class ConsolidatorConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The consolidator, which empties, parks and wakes GPUs (DESIGN 4.3).

    Attributes:
        policy: Ours, the paper's, or off: every GPU stays awake.
        look_s: Interval of its looks at the cluster.
        every_s: Least time between two plans.
        dwell_s: Least time that a GPU stays parked, and awake, before that is changed.
        horizon_s: How long a low load is expected to last, at most.
        window_s: How far back demand is looked at.
        warmup_s: How long it only looks after its start.
        lease_s: How long a GPU is kept from new requests unless that is renewed.
        patience_s: How long a plan may take before it is given up.
        least_w: A smaller saving is not worth a plan.
    """

    policy: Literal["festina", "paper", "off"] = "festina"
    look_s: Positive = 1.0
    every_s: Positive = 10.0
    dwell_s: Positive = 120.0
    horizon_s: Positive = 300.0
    window_s: Positive = 300.0
    warmup_s: Annotated[float, Meta(ge=0)] = 30.0
    lease_s: Positive = 10.0
    patience_s: Positive = 60.0
    least_w: Annotated[float, Meta(ge=0)] = 1.0


class GatewayConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The HTTP gateway.

    Attributes:
        http: HOST:PORT to serve HTTP on; "" serves none, port 0 is chosen by the system.
        keys_file: File of API keys, one a line; "" asks for none, which only loopback allows.
        requests_max: Outputs generated at once; more are refused with 429.
        requests_per_s: Requests a second for each API key, or in all where there are none; more are
            refused with 429. 0 sets no limit.
        requests_burst: How many of them at once, after a pause.
        max_tokens: Longest output of requests that do not say.
        body_bytes_max: Largest body of a request.
        body_timeout_s: How long a body may take to arrive.
        stall_s: How long a client may leave its stream unread before it is cancelled.
        vllm_names: Metrics that vLLM has too are also shown under its names, for its dashboards.
    """

    http: str = ""
    keys_file: str = ""
    requests_max: PositiveInt = 1024
    requests_per_s: Annotated[float, Meta(ge=0)] = 0.0
    requests_burst: PositiveInt = 100
    max_tokens: PositiveInt = 256
    body_bytes_max: Annotated[int, Meta(gt=0, le=3 * 1024 * 1024)] = 1024 * 1024
    body_timeout_s: Positive = 30.0
    stall_s: Positive = 30.0
    vllm_names: bool = False


class SupervisorConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Processes of `festina serve` that die are started again.

    Attributes:
        backoff_s: Pause before the second start in a row; doubles with each. The first is at once.
        backoff_s_max: Longest pause.
        healthy_s: A process that has lived this long counts as well again.
    """

    backoff_s: Positive = 0.5
    backoff_s_max: Positive = 30.0
    healthy_s: Positive = 30.0


class TraceConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trace of requests and GPUs for ui.perfetto.dev (`festina serve --trace FILE`).

    Attributes:
        file: Where all processes of this machine write it; "" writes none.
        bytes_max: The trace ends when the file is about this large.
    """

    file: str = ""
    bytes_max: PositiveInt = 256 * 1024 * 1024


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logs on stderr: events with ids of requests, never their texts.

    Attributes:
        format: `json` or `text`, a line an event; `off` tells warnings only, as text.
        level: The least that is told.
    """

    format: Literal["off", "text", "json"] = "off"
    level: Literal["debug", "info", "warning"] = "info"


class SecurityConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of this process and keys that it admits (`festina keys`).

    Attributes:
        identity: File with this process's keys; "" has none, which only loopback sockets allow.
        authorized: Folder of the public keys that its sockets admit.
        requests_per_s: Requests a second that the owner of a client's key may submit; 0 sets no
            limit.
        requests_burst: How many of them at once, after a pause.
    """

    identity: str = ""
    authorized: str = ""
    requests_per_s: Annotated[float, Meta(ge=0)] = 0.0
    requests_burst: PositiveInt = 100


class CpuPowerConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the modelled power of one CPU core. Labelled modelled wherever it shows.

    Attributes:
        idle_w: Power of an idle core and its share of the package.
        parked_w: The same while no engine runs on it.
        active_w: Added while a step runs.
        pj_per_flop: Added per floating-point operation.
        pj_per_byte: Added per byte moved from memory.
    """

    idle_w: Positive = 5.0
    parked_w: Positive = 3.0
    active_w: Positive = 6.0
    pj_per_flop: Positive = 60.0
    pj_per_byte: Positive = 150.0


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything.

    Attributes:
        gpus: Devices to serve on: `cpu:N`, `sim:N`, `sim:KIND:N`, `cuda:ORDINAL` or `cuda:all`,
            comma-separated.
        deployments: Models to serve.
        profiles: Folder of profiles; "" uses the shipped ones.
        models_dir: Cache folder of weights; "" uses the user's cache folder.
    """

    gpus: str = "cpu:2"
    deployments: tuple[DeploymentConfig, ...] = ()
    link: LinkConfig = LinkConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    agent: AgentConfig = AgentConfig()
    consolidator: ConsolidatorConfig = ConsolidatorConfig()
    gateway: GatewayConfig = GatewayConfig()
    security: SecurityConfig = SecurityConfig()
    supervisor: SupervisorConfig = SupervisorConfig()
    cpu_power: CpuPowerConfig = CpuPowerConfig()
    trace: TraceConfig = TraceConfig()
    log: LogConfig = LogConfig()
    profiles: str = ""
    models_dir: str = ""
