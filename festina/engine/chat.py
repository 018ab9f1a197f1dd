"""A model's own chat template, rendered as Hugging Face's libraries render it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from festina.errors import BadRequestError, WeightsError
from festina.messages import ChatTurn


class ChatTemplate:
    """A Jinja template in a sandbox: it can neither reach nor change anything but its variables.

    Args:
        source: Jinja text, from the weights file.
        bos_token: Text of the begin-of-text token.
        eos_token: Text of the end-of-text token.
        now: Local time, for templates that print a date.

    Raises:
        WeightsError: The template is not Jinja.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str,
        eos_token: str,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise WeightsError(
                f"the chat template is not Jinja: {error}", field="tokenizer.chat_template"
            ) from error

    def render(self, turns: tuple[ChatTurn, ...]) -> str:
        """The conversation as text that ends where the assistant's answer begins.

        Raises:
            BadRequestError: There are no turns, or the template refuses them.
        """
        if not turns:
            raise BadRequestError("no turns", field="turns", expected="at least one")
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, **self._tokens
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise BadRequestError(
                f"the model's chat template refuses them: {error}", field="turns"
            ) from error


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - any JSON value
    # Jinja's own filter escapes HTML characters, which no chat template wants.
    return json.dumps(value, ensure_ascii=False, indent=indent)
