"""Checks what callers ask of the compiler, field by field. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.compiler.importing import StoredModel
from services.compiler.infer.thresholds import MOST_ERROR
from services.compiler.infer.variant import infer_facts_of
from services.compiler.order import Order
from services.compiler.recipes import (
    Recipe,
    check_runs,
    cut_to_graph,
    default_recipes,
    find_recipe,
    fit,
    offered_recipes,
)
from services.compiler.search.verdict_words import floor_of
from services.compiler.sizes import sizes_of, with_sizes
from services.compiler.sources.detection import Form
from services.compiler.sources.normal_form import GRAPH
from services.compiler.targets import Target, choose_targets
from tradewind.domain.errors import InvalidField, UnsupportedModel
from tradewind.domain.manifest import RecipeFacts
from tradewind.domain.quality_floor import EXAMPLE, QualityFloor
from tradewind.v1 import compiler_pb2

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Longest path that Linux takes.
MAX_PATH: Final = 4096
# More targets or recipes in one request than the books will ever have are a mistake.
MAX_NAMES: Final = 64
MAX_BUDGET_S: Final = 7 * 86_400
# What a model that is kept as a program computes in is written in it.
_PROGRAM_PRECISION: Final = "f32"

_FORM: Final = {
    compiler_pb2.MODEL_FORMAT_HUGGING_FACE: Form.HUGGING_FACE,
    compiler_pb2.MODEL_FORMAT_GGUF: Form.GGUF,
    compiler_pb2.MODEL_FORMAT_ONNX: Form.ONNX,
    compiler_pb2.MODEL_FORMAT_TENSORFLOW: Form.TENSORFLOW,
    compiler_pb2.MODEL_FORMAT_PT2: Form.PT2,
    compiler_pb2.MODEL_FORMAT_MLIR: Form.MLIR,
    compiler_pb2.MODEL_FORMAT_KERAS: Form.KERAS,
    compiler_pb2.MODEL_FORMAT_PYTORCH: Form.PYTORCH,
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
        supported = ", ".join(_FORM.values())
        raise UnsupportedModel(f"format {request.format} is not known; {supported} are", {"supported": supported})
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
        for recipe in _fitting(_recipes(request.recipes, target), model, by_name=bool(request.recipes)):
            order = Order(model, _fitted(recipe, target, model, request), target)
            found[order.key] = order
    return tuple(found.values())


def search_orders(
    request: compiler_pb2.BuildVariantsRequest, model: StoredModel, targets: tuple[Target, ...]
) -> dict[str, tuple[Order, ...]]:
    """Candidates of a search for each target, in the book's order.

    Raises:
        InvalidField: which field, and what it could be.
    """
    check_build(request)
    found: dict[str, tuple[Order, ...]] = {}
    for target in choose_targets(tuple(request.targets), targets):
        recipes = _fitting(offered_recipes(target.name, target.features), model, by_name=False)
        fitted = (_fitted(recipe, target, model, request) for recipe in recipes)
        # What a model's kind leaves out of recipes may leave two of them alike; the first stands for both.
        alike = {replace(facts, name=""): facts for facts in reversed(tuple(fitted))}
        found[target.name] = tuple(Order(model, facts, target) for facts in reversed(alike.values()))
    return found


def _fitted(
    recipe: Recipe, target: Target, model: StoredModel, request: compiler_pb2.BuildVariantsRequest
) -> RecipeFacts:
    facts, context_tokens, sizes = model.model, request.context_tokens, sizes_of(request)
    if facts.task != compiler_pb2.MODEL_TASK_INFER:
        fitted = with_sizes(fit(recipe, target.features, facts.context_tokens, context_tokens), sizes)
        return cut_to_graph(fitted) if GRAPH in model.build_files else fitted
    if sizes.asked:
        raise InvalidField(
            "prefill_chunks", "this model maps tensors to tensors: it has no prompts, batches or slots to choose"
        )
    if model.program is not None and recipe.facts.precision != _PROGRAM_PRECISION:
        raise InvalidField(
            "recipes", f"{recipe.name!r} changes the precision, which a model of this form keeps; use f32"
        )
    if recipe.facts.precision not in MOST_ERROR:
        raise InvalidField(
            "recipes",
            f"{recipe.name!r} is for models that generate; one that maps tensors to tensors takes recipes in "
            f"{', '.join(MOST_ERROR)}",
        )
    longest = facts.context_tokens or recipe.facts.context_buckets[-1]
    # Sizes are not the recipe's own here; only its precision, passes and flags are.
    whole = fit(recipe, target.features, max(longest, context_tokens), 0)
    return infer_facts_of(whole, facts, context_tokens)


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
    if request.search and request.recipes:
        raise InvalidField("recipes", "a search chooses recipes itself; name recipes, or search, not both")
    if request.chain and (len(request.targets) < 2 or not request.search):
        raise InvalidField("chain", "a fallback chain is a search over two or more targets, first choice first")
    _floor(request)
    sizes_of(request)


def floor_of_request(request: compiler_pb2.BuildVariantsRequest, model: StoredModel) -> QualityFloor:
    """The least quality that a request asks for.

    Raises:
        InvalidField: nonsense, or a figure that models of this kind do not have.
    """
    floor = _floor(request)
    infers = model.model.task == compiler_pb2.MODEL_TASK_INFER
    if infers and floor.asks_of_text:
        raise InvalidField(
            "min_quality",
            "this model maps tensors to tensors; its answers have no top-1, KL or perplexity: ask for error=0.1%",
        )
    if floor.error_most is not None and not infers:
        raise InvalidField("min_quality", f"error= is of models that map tensors to tensors; ask for {EXAMPLE}")
    return floor


def _floor(request: compiler_pb2.BuildVariantsRequest) -> QualityFloor:
    try:
        return floor_of(request.min_quality)
    except ValueError as error:
        raise InvalidField("min_quality", str(error)) from error


def _fitting(recipes: tuple[Recipe, ...], model: StoredModel, *, by_name: bool) -> tuple[Recipe, ...]:
    """The recipes that fit a model, unless they were named: a wish that cannot be met is refused, not dropped."""
    if by_name or model.model.task != compiler_pb2.MODEL_TASK_INFER:
        return recipes
    precisions = (_PROGRAM_PRECISION,) if model.program is not None else MOST_ERROR
    return tuple(recipe for recipe in recipes if recipe.facts.precision in precisions)


def _recipes(names: Sequence[str], target: Target) -> tuple[Recipe, ...]:
    if not names:
        return default_recipes(target.name, target.features)
    chosen = tuple(find_recipe(name) for name in names)
    for recipe in chosen:
        check_runs(recipe, target.name, target.features)
    return chosen
