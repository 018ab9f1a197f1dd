"""`code-agent-long`: bursts of code completion, long conversations, and agents that loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from festina.simulator.workload import Deployment
from festina.simulator.workloads.draft import Draft, Setting
from festina.simulator.workloads.models import cycle_models, zipf_shares
from festina.simulator.workloads.recipes.agents import Agents, run_agents
from festina.simulator.workloads.sources.code import PERIOD_S, SLICE_S, open_code
from festina.simulator.workloads.sources.long_chat import open_long_chat
from festina.simulator.workloads.sources.recording import Recording, join
from festina.simulator.workloads.sources.sessions import FAMILIES
from festina.simulator.workloads.variants import refuse

DURATION_S = PERIOD_S
GPUS = 8
CODE_MODELS_PER_GPU = 2
CODE_EXPONENT = 1.1
LONG_CHAT_SHARE = 0.25
SESSIONS_PER_GPU = 3
AGENT_SHAPES = ("qwen-14b", "llama-8b", "llama-3b")
"""What serves opus, sonnet and haiku."""
INPUT_TOKENS_MAX = 32_768
VARIANTS = ()


def build(setting: Setting, variants: Sequence[str]) -> Draft:
    """2100 s for 8 GPUs: 16 code models, 8 for long chats, 3 for 24 sessions of coding agents.

    Every 10 s of Azure's code trace go to one model, chosen by Zipf 1.1; a quarter of Mooncake's
    conversations is spread over the chat models; sessions begin at any time. Other numbers of GPUs
    get models, requests and sessions in proportion: where that takes more than the traces hold,
    they come again at random shifts in time.
    """
    for variant in variants:
        refuse(variant, VARIANTS)
    gpus = setting.gpus
    scale = setting.load * gpus / GPUS
    open_models = cycle_models((CODE_MODELS_PER_GPU + 1) * gpus)
    code_models = CODE_MODELS_PER_GPU * gpus
    open_loop = join([_code(setting, scale, code_models), _chat(setting, scale, code_models)])
    groups = math.ceil(gpus / GPUS)
    agents = run_agents(
        setting,
        sessions=max(1, round(SESSIONS_PER_GPU * gpus * setting.load)),
        groups=groups,
        duration_s=DURATION_S,
    )
    return _together(open_models, open_loop, agents, groups)


def _code(setting: Setting, scale: float, models: int) -> Recording:
    """Bursts of code for models 0 to `models` - 1."""
    rng = setting.rng
    shares = zipf_shares(rng, models, CODE_EXPONENT)
    slices = int(DURATION_S / SLICE_S)
    return join(
        [
            replace(copy, model=rng.choice(models, slices, p=shares)[_slice(copy)])
            for copy in open_code(setting.traces, rng).copies(rng, scale, shift=False)
        ]
    )


def _slice(copy: Recording) -> np.ndarray:
    return (copy.t_s // SLICE_S).astype(np.int64)


def _chat(setting: Setting, scale: float, first: int) -> Recording:
    """Long conversations for the models from `first` on."""
    rng = setting.rng
    source = open_long_chat(setting.traces, rng)
    chat = join(source.copies(rng, LONG_CHAT_SHARE * scale, shift=False))
    return replace(chat, model=first + rng.integers(setting.gpus, size=len(chat.t_s)))


def _together(
    models: tuple[Deployment, ...], open_loop: Recording, agents: Agents, groups: int
) -> Draft:
    extra = tuple(
        Deployment(f"agent{group:02d}-{family}-{shape}", shape)
        for group in range(groups)
        for family, shape in zip(FAMILIES, AGENT_SHAPES, strict=True)
    )
    before = len(open_loop.t_s)
    inputs = np.concatenate([open_loop.input_tokens, agents.input_tokens])
    return Draft(
        models + extra,
        DURATION_S,
        t_s=np.concatenate([open_loop.t_s, agents.t_s]),
        model=np.concatenate([open_loop.model, len(models) + agents.model]),
        input_tokens=np.minimum(inputs, INPUT_TOKENS_MAX),
        output_tokens=np.concatenate([open_loop.output_tokens, agents.output_tokens]),
        cached_tokens=np.concatenate([np.zeros(before, np.int64), agents.cached_tokens]),
        follows=np.concatenate(
            [np.full(before, -1), np.where(agents.follows >= 0, before + agents.follows, -1)]
        ),
    )
