"""A real uvicorn over a Site, in a thread, for what needs a socket: streams, other people's clients, slow readers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from dubbing.web import server, tailnet
from dubbing.web.app import guarded, routes
from tests.web.site import Site


class Running(server.Server):
    """A server that can be stopped from another thread."""

    def __init__(self, options: uvicorn.Config, app: object) -> None:
        super().__init__(options, app.state.hub)  # type: ignore[attr-defined]
        self.app = app
        self.up = threading.Event()
        self.address = ""

    async def startup(self, sockets: object = None) -> None:
        """See uvicorn.Server."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        self.up.set()


@contextmanager
def served(site: Site) -> Iterator[Running]:
    """The site on a free port, and on its unix socket if it has one, while the block lasts."""
    app = routes(site.office)
    listener = server.listen(site.office.settings.model_copy(update={"port": 0}))
    options = uvicorn.Config(
        guarded(app, site.office),
        lifespan="on",
        log_level="error",
        log_config=None,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    running = Running(options, app)
    running.address = server.address(listener).rstrip("/")
    with contextlib.ExitStack() as stack:
        settings = site.office.settings
        also = [stack.enter_context(tailnet.listening(settings))] if settings.web_socket else []
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener, *also]})
        thread.start()
        try:
            assert running.up.wait(30)
            yield running
        finally:
            running.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
