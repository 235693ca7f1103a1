"""Finds what a person means by a short text."""

from __future__ import annotations

from collections.abc import Sequence

from tradewind.client.compiler import CompilerClient
from tradewind.domain.errors import NotFound, RemoteError
from tradewind.v1 import compiler_pb2


def find_variant(compiler: CompilerClient, text: str, model: str = "") -> compiler_pb2.Variant:
    """A variant by id, the beginning of its digest, or name.

    Raises:
        NotFound: there is none, or several begin so.
        RemoteError: the model named does not exist.
    """
    variants = compiler.variants(model)
    exact = [v for v in variants if text in (v.variant_id, v.name)]
    digest = text.removeprefix("sha256:")
    found = exact or [v for v in variants if len(digest) >= 4 and v.variant_id.startswith(f"sha256:{digest}")]
    if not found or (len(found) > 1 and not exact):
        hint = "several begin so; give more digits" if found else "`tradewind variant list` shows them"
        raise NotFound("variant", text, hint)
    return found[0]


def chain_of(compiler: CompilerClient, model: str) -> list[str]:
    """Variants of the fallback chain that the newest search of a model made, first choice first.

    Raises:
        NotFound: it made none.
        RemoteError: the model named does not exist.
    """
    if not (chain := newest_chain(compiler, model)).variant_ids:
        hint = f"`tradewind variant build {model} --target A,B --chain` makes one"
        raise NotFound("fallback chain of model", model, hint)
    return list(chain.variant_ids)


def newest_chain(compiler: CompilerClient, model: str) -> compiler_pb2.FallbackChain:
    """The fallback chain of the newest search of a model; an empty one when it made none.

    Raises:
        RemoteError: the model named does not exist.
    """
    try:
        return compiler.search(model).chain
    except RemoteError as error:
        if error.metadata.get("kind") != "search of model":
            raise
        return compiler_pb2.FallbackChain()


def require_decided(deployment: str, found: Sequence[object]) -> None:
    """Refuses a name of which the journal says nothing; every deployment has the decision that made it.

    Raises:
        NotFound: one was named and nothing was found.
    """
    if deployment and not found:
        raise NotFound("deployment", deployment, "nothing was decided about it; ended ones go by their id")
