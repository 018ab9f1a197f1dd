"""Whatever a frame may hold, the native view takes it or refuses it with a typed error."""

import itertools

import msgspec
import pytest

from festina.config import Config, DeploymentConfig
from festina.errors import ProtocolError
from festina.messages import Failed, Register, Reregister, Summary, Welcome, decode, encode
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.runtime.view import build_view
from festina.types import GpuSummary, ModelState, ModelSummary, Provenance

CONFIG = Config(deployments=(DeploymentConfig(name="chat", weights="sim:llama-8b"),))
EXTREMES = (-(2**63), -1, 0, 1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**64 - 1)
MODEL = ModelSummary("chat", ModelState.READY)
GPU = GpuSummary(
    seq=1,
    clock_mhz=1980,
    clock_target_mhz=1980,
    sms_total=132,
    sms_free=132,
    free_in_ms=0.0,
    kv_tokens_total=1000,
    kv_tokens_free=1000,
    memory_free_bytes=1 << 30,
    power_w=100.0,
    power_source=Provenance.MODELLED,
    energy_j=1.0,
    parked=False,
    models=(MODEL,),
)
REGISTER = Register("gpu0", 1, "tcp://127.0.0.1:1", "H100-SXM5-80GB", 132, (), 80 << 30, ("chat",))


def of_gpu(name, value):
    return Summary("gpu0", 1, msgspec.structs.replace(GPU, **{name: value}))


def of_model(name, value):
    return of_gpu("models", (msgspec.structs.replace(MODEL, **{name: value}),))


def of_register(name, value):
    return msgspec.structs.replace(REGISTER, **({"epoch": 2} | {name: value}))


FIGURES = [
    *((of_gpu, name) for name in GPU.__struct_fields__ if type(getattr(GPU, name)) in (int, float)),
    *((of_model, name) for name in ("running", "waiting", "context_tokens", "waiting_tokens")),
    (of_model, "tbt_ms"),
    *((of_register, name) for name in ("sms_total", "memory_bytes", "epoch")),
]
LISTS = [(of_gpu, "tickets"), (of_register, "clocks_mhz")]
MESSAGES = [
    *((make, name, value) for (make, name), value in itertools.product(FIGURES, EXTREMES)),
    *((make, name, (value,)) for (make, name), value in itertools.product(LISTS, EXTREMES)),
]


@pytest.fixture(scope="module")
def view():
    return build_view(CONFIG)


@pytest.mark.parametrize(("make", "name", "value"), MESSAGES)
def test_no_figure_of_an_agent_stops_the_scheduler(view, make, name, value):
    logic = SchedulerLogic(CONFIG, view, 1)
    assert isinstance(logic.on_message(b"a", REGISTER, 0.0)[0].message, Welcome)
    try:
        message = decode(encode(make(name, value)))
    except ProtocolError as error:
        message = error
    for send in logic.on_message(b"a", message, 0.0):
        assert isinstance(send.message, Welcome | Failed | Reregister)
    logic.on_timer(1e6)  # the agent is silent and goes
