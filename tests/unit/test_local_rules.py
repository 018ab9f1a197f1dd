"""How large steps are where nobody says."""

import pytest

from festina.config import AgentConfig
from festina.runtime.protocol.local_rules import local_rules


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("cpu", (32, 128)), ("H100-SXM5-80GB", (256, 2048)), ("A100-SXM4-40GB", (256, 2048))],
)
def test_a_gpu_takes_more_in_a_step_than_a_cpu(kind, expected):
    rules = local_rules(AgentConfig(), kind)
    assert (rules.batch_max, rules.chunk_tokens) == expected


@pytest.mark.parametrize("kind", ["cpu", "H100-SXM5-80GB"])
def test_a_setting_wins_over_the_device(kind):
    agent = AgentConfig(batch_max=5, chunk_tokens=48, margin=0.3, beta=0.2)
    rules = local_rules(agent, kind)
    assert (rules.batch_max, rules.chunk_tokens) == (5, 48)
    assert (rules.margin, rules.beta) == (0.3, 0.2)


def test_each_is_chosen_by_itself():
    rules = local_rules(AgentConfig(chunk_tokens=48), "H100-SXM5-80GB")
    assert (rules.batch_max, rules.chunk_tokens) == (256, 48)
