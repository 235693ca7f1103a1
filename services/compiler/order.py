"""A variant wanted: model, recipe, target, and what follows from them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.compiler.export.shapes import Shapes
from services.compiler.importing import StoredModel
from services.compiler.infer.shapes import InferShapes
from services.compiler.infer.variant import shapes_of as infer_shapes_of
from services.compiler.sizes import unusual
from services.compiler.store.index import key_of
from services.compiler.targets import Target
from services.compiler.toolchain import toolchain_versions
from tradewind.domain.manifest import RecipeFacts
from tradewind.v1 import compiler_pb2


@dataclass(frozen=True, slots=True)
class Order:
    """A variant wanted."""

    model: StoredModel
    recipe: RecipeFacts
    target: Target

    @property
    def name(self) -> str:
        """Short name, unique for the model: the recipe, the target, and sizes that are not the recipe's own."""
        sizes = "" if self.infers else unusual(self.recipe, self.target.features, self.model.model.context_tokens)
        return f"{self.recipe.name}/{self.target.name.replace(':', '-')}{sizes}"

    @property
    def infers(self) -> bool:
        """Whether it maps tensors to tensors, in place of generating."""
        return self.model.model.task == compiler_pb2.MODEL_TASK_INFER

    @property
    def shapes(self) -> Shapes | InferShapes:
        """The module's functions."""
        recipe = self.recipe
        if self.infers:
            return self.model.program or infer_shapes_of(recipe)
        return Shapes(recipe.prefill_chunks, recipe.decode_batches, recipe.context_buckets, recipe.slots)

    @property
    def key(self) -> str:
        """Digest of everything that goes into the variant."""
        target = (self.target.name, self.target.resolved, (*self.target.flags, *self.target.optimisation))
        return key_of("variant", self.model.model.model_id, self.recipe.as_dict(), target, toolchain_versions())
