"""Chat templates: messages to the text a model was trained on. Runs the model owner's Jinja in a sandbox."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.gateway.limits import MAX_PROMPT_CHARS
from tradewind.domain.errors import InvalidField

# "x" * n and x ** n in a template could make values of any size; no honest template needs them beyond this.
_MAX_FACTOR: Final = 10_000


class TemplateRefusal(Exception):
    """A template called raise_exception."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with multiplication bounded too."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Refuses operands whose result could be huge."""
        if any(isinstance(side, int | float) and abs(side) > _MAX_FACTOR for side in (left, right)):
            raise jinja2.exceptions.SecurityError(f"{operator} with an operand above {_MAX_FACTOR}")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A compiled template.

    Args:
        source: Jinja text, as Hugging Face models carry it.
        variables: what it may use beside the messages, for instance bos_token.

    Raises:
        InvalidField: it is no Jinja.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self._variables = dict(variables)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidField("messages", f"the model's chat template is broken: {error}") from error

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for an assistant's next message.

        Raises:
            InvalidField: the template refuses these messages or fails on them, or the prompt gets too long.
        """
        try:
            pieces, length = [], 0
            for piece in self._template.generate(
                messages=[dict(message) for message in messages], add_generation_prompt=True, **self._variables
            ):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_PROMPT_CHARS:
                    raise InvalidField("messages", f"the prompt is longer than {MAX_PROMPT_CHARS} characters")
        except TemplateRefusal as error:
            raise InvalidField("messages", f"the model's chat template refuses them: {error}") from error
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            # Templates are programs: these are what expressions in one can raise.
            raise InvalidField("messages", f"the model's chat template fails on them: {error}") from error
        return "".join(pieces)


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def _now(form: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(form)
