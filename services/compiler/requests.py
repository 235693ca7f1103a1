"""Checks what callers ask of the compiler, field by field. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.compiler.building import Order
from services.compiler.importing import StoredModel
from services.compiler.recipes import Recipe, default_recipes, find_recipe, fit
from services.compiler.sources.detection import Form
from services.compiler.targets import Target, choose_targets
from tradewind.domain.errors import InvalidField, UnsupportedModel
from tradewind.v1 import compiler_pb2

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Longest path that Linux takes.
MAX_PATH: Final = 4096
# More targets or recipes in one request than the books will ever have are a mistake.
MAX_NAMES: Final = 64
MAX_BUDGET_S: Final = 7 * 86_400

_FORM: Final = {
    compiler_pb2.MODEL_FORMAT_HUGGING_FACE: Form.HUGGING_FACE,
    compiler_pb2.MODEL_FORMAT_GGUF: Form.GGUF,
}


def check_import(request: compiler_pb2.ImportModelRequest) -> tuple[Path, Form | None]:
    """The source of an import, and its form where the caller names one.

    Raises:
        InvalidField: which field, and what it should be.
        UnsupportedModel: a form of the contract that this compiler does not read yet.
    """
    if not NAME_PATTERN.fullmatch(request.name):
        raise InvalidField(
            "name", f"{request.name!r} is not 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    path = request.source_path
    if not path or len(path.encode()) > MAX_PATH or "\0" in path:
        raise InvalidField("source_path", "the path of a model file or folder is needed")
    if not path.startswith("/"):
        raise InvalidField("source_path", f"{path!r} is relative; the compiler has another folder, give the whole path")
    if request.format == compiler_pb2.MODEL_FORMAT_UNSPECIFIED:
        return Path(path), None
    form = _FORM.get(request.format)
    if form is None:
        known = compiler_pb2.ModelFormat.Name(request.format) if request.format in _formats() else str(request.format)
        raise UnsupportedModel(
            f"format {known} is not supported; a Hugging Face folder and GGUF are", {"supported": "hugging_face, gguf"}
        )
    return Path(path), form


def orders(
    request: compiler_pb2.BuildVariantsRequest, model: StoredModel, targets: tuple[Target, ...]
) -> tuple[Order, ...]:
    """What a build request means, each variant once.

    Raises:
        InvalidField: which field, and what it could be.
    """
    check_build(request)
    found: dict[str, Order] = {}
    for target in choose_targets(tuple(request.targets), targets):
        for recipe in _recipes(request.recipes, target):
            facts = fit(recipe, target.features, model.model.context_tokens, request.context_tokens)
            order = Order(model, facts, target)
            found[order.key] = order
    return tuple(found.values())


def check_build(request: compiler_pb2.BuildVariantsRequest) -> None:
    """What can be checked without the model.

    Raises:
        InvalidField: which field, and what it could be.
    """
    if len(request.targets) > MAX_NAMES:
        raise InvalidField("targets", f"{len(request.targets)} are more than {MAX_NAMES}")
    if len(request.recipes) > MAX_NAMES:
        raise InvalidField("recipes", f"{len(request.recipes)} are more than {MAX_NAMES}")
    if request.budget_s > MAX_BUDGET_S:
        raise InvalidField("budget_s", f"{request.budget_s} is more than a week, {MAX_BUDGET_S}")
    for name in request.recipes:
        find_recipe(name)


def _recipes(names: Sequence[str], target: Target) -> tuple[Recipe, ...]:
    if not names:
        return default_recipes(target.name, target.features)
    chosen = tuple(find_recipe(name) for name in names)
    for recipe in chosen:
        if not target.name.startswith(recipe.targets):
            fitting = ", ".join(recipe.targets)
            raise InvalidField("recipes", f"{recipe.name!r} is for targets {fitting}…, not for {target.name}")
    return chosen


def _formats() -> frozenset[int]:
    return frozenset(compiler_pb2.ModelFormat.values())
