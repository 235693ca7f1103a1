"""What /openapi.json says about bodies that `read_body` reads by itself, beyond what FastAPI can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

_PLACE: Final = "#/components/schemas/{model}"


def body_of(shape: type[BaseModel]) -> dict[str, Any]:
    """The part of an operation that names its body."""
    schema = {"$ref": _PLACE.format(model=shape.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document(app: FastAPI, shapes: Sequence[type[BaseModel]]) -> None:
    """Adds the bodies' schemas to what the application says about itself."""
    schema = app.openapi()
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for shape in shapes:
        own = shape.model_json_schema(ref_template=_PLACE)
        schemas |= own.pop("$defs", {})
        schemas[shape.__name__] = own
