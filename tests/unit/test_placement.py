"""What placement does with each rule, seen from outside, on a profile of simple formulas."""

import decision_samples as sample
import pytest
from decision_samples import resident, summary

from festina.control.placement import ClusterView, Improvements
from festina.errors import (
    BadRequestError,
    ContextLimitError,
    InfeasibleError,
    OverloadedError,
    UnknownModelError,
)
from festina.types import ModelState, Slo

EASY = Slo(2000.0, 200.0)


@pytest.fixture(scope="module")
def profile():
    return sample.table()


def cluster(profile, *summaries, policy="festina", clocks=sample.CLOCKS_MHZ, **settings):
    view = ClusterView({"gpu": profile}, policy, **({"margin": 0.0} | settings))
    view.add_model("chat", "m0", EASY, sample.CONTEXT_TOKENS)
    view.add_model("code", "m1", EASY, sample.CONTEXT_TOKENS)
    for i, one in enumerate(summaries):
        slot = view.add_gpu(f"gpu{i}", "gpu", 100, clocks, 1 << 30, ["chat", "code"])
        assert slot == i
        if one is not None:
            view.update(slot, one)
    return view


# --- the festina form -----------------------------------------------------------------------------


def test_joining_a_batch_is_cheaper_than_an_idle_gpu(profile):
    view = cluster(profile, summary(resident("chat")), summary(resident("chat", 8)))
    placed = view.place("chat", 100, 100, EASY)
    assert (placed.slot, placed.action, placed.on_time) == (1, "run", True)


def test_without_marginal_energy_a_busy_gpu_is_no_cheaper(profile):
    view = cluster(
        profile,
        summary(resident("chat"), clock_target_mhz=1000),
        summary(resident("chat", 8)),
        improvements=Improvements(marginal_energy=False),
    )
    assert view.place("chat", 100, 100, EASY).slot == 0


def test_a_full_batch_is_left_for_an_idle_gpu_when_tbt_would_break(profile):
    view = cluster(profile, summary(resident("chat")), summary(resident("chat", 40)))
    assert view.place("chat", 100, 100, Slo(2000.0, 5.5)).slot == 0


def test_the_objectives_of_co_residents_hold_too(profile):
    tight = resident("code", 1, tbt_ms=13.0)
    view = cluster(profile, summary(resident("chat")), summary(resident("chat", 8), tight))
    assert view.place("chat", 100, 100, EASY).slot == 0


def test_without_interference_co_residents_do_not_count(profile):
    tight = resident("code", 1, tbt_ms=13.0)
    view = cluster(
        profile,
        summary(resident("chat")),
        summary(resident("chat", 8), tight),
        improvements=Improvements(interference=False),
    )
    assert view.place("chat", 100, 100, EASY).slot == 1


def test_a_queue_counts_against_ttft(profile):
    view = cluster(
        profile, summary(resident("chat", 8), free_in_ms=300.0), summary(resident("chat", 2))
    )
    assert view.place("chat", 100, 100, EASY).slot == 0
    assert view.place("chat", 100, 100, Slo(200.0, 200.0)).slot == 1


def test_waiting_tokens_count_where_the_agent_names_no_time(profile):
    waiting = resident("chat", 8, waiting=10, waiting_tokens=40_000)
    view = cluster(profile, summary(waiting), summary(resident("chat", 2)))
    assert view.place("chat", 100, 100, Slo(200.0, 200.0)).slot == 1


def test_a_raised_clock_is_paid_by_all_co_residents(profile):
    many, few = resident("code", 30), resident("code", 1)
    slow = Slo(2.9, 200.0)  # 100 tokens take 3 ms at 1000 MHz and 2 ms at 2000 MHz, alone
    view = cluster(profile, summary(resident("chat"), many), summary(resident("chat"), few))
    placed = view.place("chat", 100, 100, slow)
    assert (placed.slot, placed.clock_mhz) == (1, 2000)


def test_no_clock_is_raised_where_that_is_switched_off(profile):
    view = cluster(
        profile,
        summary(resident("chat", 1)),
        improvements=Improvements(raise_clock=False),
    )
    assert not view.place("chat", 100, 100, Slo(2.9, 200.0)).on_time


def test_an_idle_gpu_is_expected_at_the_cheapest_clock_that_is_fast_enough(profile):
    view = cluster(profile, summary(resident("chat"), clock_target_mhz=500))
    assert view.place("chat", 100, 100, EASY).clock_mhz == 500
    assert view.place("chat", 100, 100, Slo(4.0, 200.0)).clock_mhz == 1000


def test_clocks_stay_where_they_cannot_be_set(profile):
    view = cluster(profile, summary(resident("chat"), clock_target_mhz=500), clocks=())
    assert view.place("chat", 100, 100, EASY).clock_mhz == 500
    assert not view.place("chat", 100, 100, Slo(4.0, 200.0)).on_time


def test_weights_are_loaded_only_where_no_holder_will_do(profile):
    view = cluster(profile, summary(resident("code", 1)), summary(resident("chat", 1)))
    assert view.place("chat", 100, 100, EASY).slot == 1
    placed = view.place("chat", 100, 100, EASY, exclude=[1])
    assert (placed.slot, placed.action) == (0, "load")
    assert placed.ttft_ms > sample.LOAD_MS


def test_a_parked_gpu_is_woken_last(profile):
    parked = summary(parked=True, clock_target_mhz=500)
    view = cluster(profile, parked, summary())
    assert view.place("chat", 100, 100, EASY).slot == 1
    placed = view.place("chat", 100, 100, EASY, exclude=[1])
    assert (placed.slot, placed.action) == (0, "wake")
    assert placed.ttft_ms > sample.LOAD_MS + sample.WAKE_MS


def test_a_gpu_without_memory_for_the_weights_loads_nothing(profile):
    view = cluster(profile, summary(memory_free_bytes=sample.WEIGHT_BYTES), summary())
    assert view.place("chat", 100, 100, EASY).slot == 1


def test_a_gpu_that_is_unloading_the_model_is_left_alone(profile):
    view = cluster(profile, summary(resident("chat", state=ModelState.UNLOADING)))
    with pytest.raises(OverloadedError):
        view.place("chat", 100, 100, EASY)


def test_a_gpu_that_loads_the_model_takes_requests_for_its_coming_cache(profile):
    loading = resident("chat", state=ModelState.LOADING)
    view = cluster(profile, summary(loading, kv_tokens_total=0, kv_tokens_free=0))
    placed = view.place("chat", 100, 100, EASY)
    assert (placed.slot, placed.action) == (0, "run")
    assert placed.ttft_ms > sample.LOAD_MS
    full = summary(loading, kv_tokens_free=0, memory_free_bytes=sample.WEIGHT_BYTES)
    with pytest.raises(OverloadedError):
        cluster(profile, full).place("chat", 100, 100, EASY)


def test_the_profile_s_error_makes_predictions_longer(profile):
    kind = summary(resident("chat"))
    bare = cluster(profile, kind, improvements=Improvements(spread_margin=False))
    with_error = cluster(profile, kind)
    ratio = (
        with_error.place("chat", 100, 9, EASY).ttft_ms / bare.place("chat", 100, 9, EASY).ttft_ms
    )
    assert ratio == pytest.approx(1 + sample.SPREAD)


# --- lateness and refusal -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_when_all_are_late_the_least_late_gpu_takes_it(profile, policy):
    view = cluster(
        profile,
        summary(resident("chat", 4), free_in_ms=5000.0),
        summary(resident("chat", 4), free_in_ms=3000.0),
        policy=policy,
    )
    placed = view.place("chat", 100, 100, Slo(1000.0, 200.0))
    assert (placed.slot, placed.on_time) == (1, False)


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_a_full_queue_takes_nothing(profile, policy):
    full = summary(resident("chat", 4, waiting=3, waiting_tokens=300), free_in_ms=1234.0)
    view = cluster(profile, full, policy=policy, queue_max=3, retry_after_ms=50)
    with pytest.raises(OverloadedError) as caught:
        view.place("chat", 100, 100, EASY)
    assert caught.value.retry_after_ms >= 1234


@pytest.mark.parametrize("policy", ["festina", "paper"])
@pytest.mark.parametrize("slo", [Slo(1.5, 200.0), Slo(2000.0, 2.0)])
def test_objectives_beyond_an_idle_gpu_are_infeasible(profile, policy, slo):
    view = cluster(profile, summary(resident("chat", 4)), policy=policy)
    with pytest.raises(InfeasibleError) as caught:
        view.place("chat", 100, 100, slo)
    assert caught.value.field == "slo"


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_an_empty_cluster_is_overloaded_not_infeasible(profile, policy):
    with pytest.raises(OverloadedError) as caught:
        cluster(profile, policy=policy, retry_after_ms=70).place("chat", 10, 10, Slo(1.5, 200.0))
    assert caught.value.retry_after_ms == 70


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_nothing_is_placed_when_all_gpus_are_excluded_or_silent(profile, policy):
    view = cluster(profile, summary(resident("chat")), None, policy=policy)
    with pytest.raises(OverloadedError):
        view.place("chat", 10, 10, EASY, exclude=[0])


# --- reservations ---------------------------------------------------------------------------------


def test_a_burst_between_summaries_spreads(profile):
    view = cluster(profile, *(summary(resident("chat")) for _ in range(4)))
    slots = []
    for ticket in range(40):
        placed = view.place("chat", 2000, 100, Slo(150.0, 200.0))
        view.reserve(placed.slot, ticket, "chat", 2000, now=1.0, max_tokens=100)
        slots.append(placed.slot)
    counts = [slots.count(slot) for slot in range(4)]
    assert min(counts) == max(counts) == 10


def test_a_ticket_in_a_summary_releases_its_reservation_alone(profile):
    view = cluster(profile, summary(resident("chat")))
    before = view.place("chat", 100, 100, EASY).ttft_ms
    for ticket in (7, 8):
        view.reserve(0, ticket, "chat", 1000, now=0.0)
    assert view.place("chat", 100, 100, EASY).ttft_ms > before + 40
    view.update(0, summary(resident("chat"), tickets=(7,)))
    assert view.reserved(0) == 1
    view.update(0, summary(resident("chat"), tickets=(8, 99)))
    assert view.reserved(0) == 0
    assert view.place("chat", 100, 100, EASY).ttft_ms == before


def test_reservations_expire(profile):
    view = cluster(profile, summary(resident("chat")), reservation_s=2.0)
    view.reserve(0, 1, "chat", 100, now=10.0)
    view.reserve(0, 2, "chat", 100, now=11.0)
    assert view.expire(11.9) == 0
    assert view.expire(12.0) == 1
    assert view.reserved(0) == 1
    assert view.expire(100.0) == 1


def test_reserved_kv_cache_is_not_given_away_twice(profile):
    view = cluster(profile, summary(resident("chat"), kv_tokens_free=1000))
    assert view.place("chat", 500, 200, EASY).on_time
    view.reserve(0, 1, "chat", 300, now=0.0, max_tokens=100)
    assert not view.place("chat", 500, 200, EASY).on_time


def test_requests_follow_a_reserved_load(profile):
    view = cluster(profile, summary(), summary())
    first = view.place("chat", 100, 100, EASY)
    assert first.action == "load"
    view.reserve(first.slot, 1, "chat", 100, now=0.0, max_tokens=100)
    second = view.place("chat", 100, 100, EASY)
    assert (second.slot, second.action) == (first.slot, "run")
    assert second.ttft_ms > sample.LOAD_MS


def test_a_removed_gpu_takes_its_reservations_with_it(profile):
    view = cluster(profile, summary(resident("chat")), summary(resident("chat")))
    view.reserve(0, 1, "chat", 100, now=0.0)
    view.remove_gpu(0)
    assert view.place("chat", 100, 100, EASY).slot == 1
    assert view.add_gpu("again", "gpu", 100, (), 1 << 30, ["chat"]) == 0
    assert view.reserved(0) == 0
    assert view.expire(100.0) == 0


# --- the paper's form -----------------------------------------------------------------------------


def test_paper_bills_the_whole_gpu_so_that_the_clock_decides_not_the_batch(profile):
    view = cluster(
        profile,
        summary(resident("chat", 8), clock_mhz=2000),
        summary(resident("chat"), clock_mhz=1000),
        policy="paper",
    )
    assert view.place("chat", 100, 100, EASY).slot == 1


def test_paper_breaks_ties_by_free_memory_then_free_sms(profile):
    roomy = {"memory_free_bytes": 1 << 29}
    view = cluster(
        profile,
        summary(resident("chat")),
        summary(resident("chat"), sms_free=100, **roomy),
        summary(resident("chat"), sms_free=101, **roomy),
        policy="paper",
    )
    assert view.place("chat", 100, 100, EASY).slot == 2
    assert view.place("chat", 100, 100, EASY, exclude=[2]).slot == 1


def test_paper_counts_free_sms_and_the_earliest_start(profile):
    view = cluster(
        profile,
        summary(resident("chat"), sms_free=20),
        summary(resident("chat"), free_in_ms=50.0),
        policy="paper",
    )
    assert view.place("chat", 1000, 10, Slo(80.0, 200.0)).slot == 1
    assert not view.place("chat", 1000, 10, Slo(45.0, 200.0)).on_time


def test_paper_falls_back_to_the_earliest_gpu_that_is_feasible_at_the_top_clock(profile):
    view = cluster(
        profile,
        summary(resident("chat"), free_in_ms=8.0),
        summary(resident("chat"), free_in_ms=2.0),
        summary(resident("chat"), free_in_ms=0.0, sms_free=20),
        policy="paper",
    )
    placed = view.place("chat", 1000, 10, Slo(20.0, 200.0))
    assert (placed.slot, placed.clock_mhz) == (1, 2000)


def test_paper_then_activates_a_gpu_at_the_model_s_preferred_clock(profile):
    view = cluster(
        profile,
        summary(resident("chat"), free_in_ms=500.0),
        summary(parked=True),
        summary(),
        policy="paper",
    )
    placed = view.place("chat", 1000, 1, Slo(200.0, 200.0))
    assert (placed.slot, placed.action, placed.clock_mhz) == (2, "load", 1000)
    placed = view.place("chat", 1000, 1, Slo(200.0, 200.0), exclude=[2])
    assert (placed.slot, placed.action) == (1, "wake")


# --- the edge -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        (("nobody", 1, 1, EASY), UnknownModelError, "model"),
        (("chat", 0, 1, EASY), BadRequestError, "input_tokens"),
        (("chat", 1, 0, EASY), BadRequestError, "max_tokens"),
        (("chat", 1, 1, Slo(float("nan"), 1.0)), BadRequestError, "slo.ttft_ms"),
        (("chat", 1, 1, Slo(1.0, -1.0)), BadRequestError, "slo.tbt_ms"),
        (("chat", 1, 1, Slo(1.0, float("inf"))), BadRequestError, "slo.tbt_ms"),
        (("chat", 4000, 97, EASY), ContextLimitError, "max_tokens"),
        (("chat", 1, 1, EASY, [5]), BadRequestError, "exclude"),
    ],
)
def test_a_bad_request_is_named(profile, arguments, error, field):
    with pytest.raises(error) as caught:
        cluster(profile, summary(resident("chat"))).place(*arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"free_in_ms": float("nan")}, "free_in_ms"),
        ({"free_in_ms": -1.0}, "free_in_ms"),
        ({"kv_tokens_free": -1}, "kv_tokens_free"),
        ({"memory_free_bytes": -1}, "memory_free_bytes"),
        ({"models": (resident("chat", -1),)}, "models"),
        ({"models": (resident("chat", 1, tbt_ms=0.0),)}, "models.tbt_ms"),
    ],
)
def test_a_bad_summary_is_named_and_changes_nothing(profile, changes, field):
    view = cluster(profile, summary(resident("chat", 3)))
    before = view.place("chat", 100, 100, EASY).energy_j
    with pytest.raises(BadRequestError) as caught:
        view.update(0, summary(**({"models": (resident("chat"),)} | changes)))
    assert caught.value.field == field
    assert view.place("chat", 100, 100, EASY).energy_j == before


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"margin": 1.0}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"policy": "best"}, "policy"),
        ({"queue_max": 0}, "queue_max"),
        ({"reservation_s": 0.0}, "reservation_s"),
        ({"retry_after_ms": 0}, "retry_after_ms"),
        ({"wake_stay_s": -1.0}, "wake_stay_s"),
    ],
)
def test_a_bad_setting_is_named(profile, settings, field):
    with pytest.raises(BadRequestError) as caught:
        ClusterView({"gpu": profile}, **settings)
    assert caught.value.field == field


def test_unknown_names_are_refused_where_they_enter(profile):
    view = cluster(profile, summary(resident("chat")))
    with pytest.raises(UnknownModelError):
        view.add_model("new", "no such profile", EASY, 100)
    with pytest.raises(BadRequestError, match="name"):
        view.add_model("chat", "m0", EASY, 100)
    with pytest.raises(BadRequestError, match="device_kind"):
        view.add_gpu("g", "tpu", 100, (), 1, [])
    with pytest.raises(BadRequestError, match="sms_total"):
        view.add_gpu("g", "gpu", 1, (), 1, [])
    with pytest.raises(UnknownModelError):
        view.add_gpu("g", "gpu", 100, (), 1, ["nobody"])
    with pytest.raises(UnknownModelError):
        view.update(0, summary(resident("nobody")))
    for slot in (-1, 1):
        with pytest.raises(BadRequestError, match="slot"):
            view.remove_gpu(slot)
    with pytest.raises(BadRequestError, match="profiles"):
        ClusterView({})
