"""Models, variants and profiles as their services have them: read now and then, kept when those are away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from services.orchestrator.core.facts.catalog import EMPTY_CATALOG, Catalog
from services.orchestrator.translate.catalog import profiles_of, variant_of
from tradewind.domain.errors import NotFound, ServiceUnavailable, TradewindError
from tradewind.rpc.errors import translated
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc, profiler_pb2, profiler_pb2_grpc

# A neighbour that takes longer is as good as away.
READ_LIMIT_S: Final = 5.0
PAGE_SIZE: Final = 1000
# Pages read of one list; a neighbour that never ends its list must not keep us for ever.
MOST_PAGES: Final = 100


class Catalogue:
    """What can be chosen from, as last known.

    Args:
        compiler: channel to the compiler.
        profiler: channel to the profiler.
        changed: called after a read that brought news.
    """

    def __init__(self, compiler: Any, profiler: Any, changed: Callable[[], None]) -> None:
        self._compiler: Any = compiler_pb2_grpc.CompilerServiceStub(compiler)
        self._profiler: Any = profiler_pb2_grpc.ProfilerServiceStub(profiler)
        self._changed = changed
        self._log = structlog.get_logger("catalogue")
        self._away: dict[str, bool] = {}
        self.models: dict[str, compiler_pb2.Model] = {}
        self.catalog: Catalog = EMPTY_CATALOG
        # False until the compiler answered once: before that nothing may be called unknown.
        self.known = False
        self._reading = asyncio.Lock()

    async def poll(self, period_s: float) -> None:
        """Reads again and again until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(period_s)

    async def refresh(self) -> None:
        """Reads everything once; what does not answer keeps its last known state."""
        async with self._reading:
            models, variants, profiles = self.models, self.catalog.variants, self.catalog.profiles
            if await self._try("compiler", self._read_compiler()):
                self.known = True
            await self._try("profiler", self._read_profiler())
        if (models, variants, profiles) != (self.models, self.catalog.variants, self.catalog.profiles):
            self._changed()

    def model(self, name: str) -> compiler_pb2.Model:
        """A model by name or id.

        Raises:
            NotFound: there is none; lists what there is.
            ServiceUnavailable: the compiler was never heard.
        """
        if name in self.models:
            return self.models[name]
        for model in self.models.values():
            if model.name == name:
                return model
        if not self.known:
            raise ServiceUnavailable("the compiler does not answer, models are not known yet; retry later")
        names = sorted(model.name for model in self.models.values())
        listed = f"there are: {', '.join(names)}" if names else "there are none"
        raise NotFound("model", name, f"{listed}; import one with `tradewind model import`")

    async def _try(self, service: str, read: Any) -> bool:
        try:
            await read
        except TradewindError as error:
            if not self._away.get(service):
                self._log.warning("cannot read, going on with the last known", service=service, error=error.message)
            self._away[service] = True
            return False
        if self._away.get(service):
            self._log.info("reading again", service=service)
        self._away[service] = False
        return True

    async def _read_compiler(self) -> None:
        models: dict[str, compiler_pb2.Model] = {}
        variants: list[compiler_pb2.Variant] = []
        with translated("compiler"):
            request = compiler_pb2.ListModelsRequest(page_size=PAGE_SIZE)
            async for page in _pages(self._compiler.ListModels, request):
                models.update({model.model_id: model for model in page.models})
            for model_id in sorted(models):
                wanted = compiler_pb2.ListVariantsRequest(model=model_id, page_size=PAGE_SIZE)
                async for page in _pages(self._compiler.ListVariants, wanted):
                    variants.extend(page.variants)
        known = {v.variant_id: variant_of(v) for v in variants}
        self.models = models
        self.catalog = Catalog(tuple(known[name] for name in sorted(known)), self.catalog.profiles)

    async def _read_profiler(self) -> None:
        profiles: list[profiler_pb2.Profile] = []
        with translated("profiler"):
            async for page in _pages(
                self._profiler.ListProfiles, profiler_pb2.ListProfilesRequest(page_size=PAGE_SIZE)
            ):
                profiles.extend(page.profiles)
        before = {profile.profile_id: profile for profile in self.catalog.profiles}
        # What did not change stays the same object: what plans keep from one to the next goes by that.
        found = ((profile, before.get(profile.profile_id)) for profile in profiles_of(profiles))
        kept = tuple(known if known is not None and known == profile else profile for profile, known in found)
        self.catalog = Catalog(self.catalog.variants, kept)


async def _pages(call: Any, request: Any) -> Any:
    for _ in range(MOST_PAGES):
        page = await call(request, timeout=READ_LIMIT_S)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
    raise ServiceUnavailable(f"a list did not end after {MOST_PAGES} pages of {PAGE_SIZE}")
