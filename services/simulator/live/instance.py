"""An embedded instance for the time of a block: started with settings of its own, stopped whatever happens inside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from tradewind.client.endpoints import find_endpoints
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import InUse, ServiceUnavailable
from tradewind.embedded import control
from tradewind.embedded.layout import Layout
from tradewind.embedded.supervisor import holder


@contextlib.contextmanager
def own_instance(layout: Layout, settings: Mapping[str, str], tell: Callable[[str], None]) -> Iterator[Tradewind]:
    """Starts PostgreSQL, Redis and every service on free ports and stops them in order afterwards.

    Args:
        layout: state folder; models, variants and profiles in it are found again by the next instance.
        settings: environment variables of the services.
        tell: is told the name of each part that is up.

    Raises:
        InUse: an instance runs there already; its cores and its policy are not ours to choose.
        ServiceUnavailable: a part did not come up; what had started is stopped.
    """
    if (pid := holder(layout)) is not None:
        raise InUse(
            f"Tradewind runs on {layout.root} (pid {pid}); a live evaluation starts its own: `tradewind down` first, "
            "or name another --state-dir",
            {"pid": str(pid), "path": str(layout.root)},
        )
    launch = control.Launch(layout, ["--free-ports"], settings)
    try:
        for event in launch.events():
            if event["event"] == "failed":
                raise ServiceUnavailable(f"the instance did not start: {event['message']}", {"service": "embedded"})
            if event["event"] == "ready":
                break
            tell(str(event.get("name", "")))
        with Tradewind(find_endpoints(layout.root, {})) as client:
            yield client
    finally:
        launch.stop()
        control.stop(layout)
        launch.process.wait(control.STOP_LIMIT_S)
