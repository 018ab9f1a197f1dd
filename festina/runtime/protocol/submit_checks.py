"""Is this `Submit` one that can be placed? Pure checks, each error naming its field."""

from __future__ import annotations

from collections.abc import Mapping

from festina.config import DeploymentConfig
from festina.errors import BadRequestError, ContextLimitError, UnknownModelError
from festina.messages import Submit
from festina.types import Slo

OBJECTIVE_MS_MAX = 1e9


def check_submit(submit: Submit, deployments: Mapping[str, DeploymentConfig]) -> DeploymentConfig:
    """The deployment that it asks for.

    Raises:
        UnknownModelError: There is none of this name.
        BadRequestError: A length or an objective is out of range.
        ContextLimitError: Prompt and output do not fit the deployment's context.
    """
    deployment = deployments.get(submit.model)
    if deployment is None:
        raise UnknownModelError(
            f"no deployment is called {submit.model!r}",
            field="model",
            expected="one of " + ", ".join(deployments),
        )
    if submit.input_tokens < 1:
        raise BadRequestError("an empty prompt", field="input_tokens", expected="at least 1")
    if submit.max_tokens < 1:
        raise BadRequestError("no output wanted", field="max_tokens", expected="at least 1")
    _check_context(submit, deployment.context_tokens)
    if submit.slo is not None:
        _check_slo(submit.slo)
    return deployment


def likely_input_tokens(submit: Submit, deployment: DeploymentConfig) -> int:
    """Prompt length to plan with: an estimate is never taken for more than fits."""
    return min(submit.input_tokens, deployment.context_tokens - submit.max_tokens)


def _check_context(submit: Submit, context_tokens: int) -> None:
    """The agent counts what was estimated, so an estimate alone refuses nothing."""
    if submit.max_tokens >= context_tokens:
        raise ContextLimitError(
            f"{submit.max_tokens} tokens of output",
            field="max_tokens",
            expected=f"fewer than the context of {context_tokens}",
        )
    if not submit.estimated and submit.input_tokens + submit.max_tokens > context_tokens:
        raise ContextLimitError(
            f"{submit.input_tokens} prompt tokens and {submit.max_tokens} of output",
            field="input_tokens",
            expected=f"at most {context_tokens} together",
        )


def _check_slo(slo: Slo) -> None:
    for field, value in (("slo.ttft_ms", slo.ttft_ms), ("slo.tbt_ms", slo.tbt_ms)):
        if not 0.0 < value <= OBJECTIVE_MS_MAX:  # NaN fails too
            raise BadRequestError(
                f"{value} ms",
                field=field,
                expected=f"above 0 and at most {OBJECTIVE_MS_MAX:g}",
            )
