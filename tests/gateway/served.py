"""The real app behind a real HTTP server, with a dispatcher over plain processes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn
from processes import Processes, make_dispatcher
from work_fixtures import write_raw

from gateway.app import create_app
from gateway.ledger.database import open_database
from gateway.service import Service
from gateway.settings import Settings
from manifest.store import open_store


class Served:
    """The app on a port of this machine; it can be stopped and started again. Nothing works yet: see `working`."""

    def __init__(self, home: Path, *, keys: bool = False) -> None:
        self.home = home
        self.settings = Settings(home=home, raw_roots=(str(home / "raw"),), keys=keys)
        self.database = open_database(self.settings.database_url)
        self.processes = Processes()
        self.dispatcher = make_dispatcher(self.database, self.processes, home)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        service = Service(self.settings, self.database, open_store(self.settings.store_uri), self.dispatcher)
        config = uvicorn.Config(
            create_app(service), host="127.0.0.1", port=self.port, log_level="warning", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def close(self) -> None:
        self.stop()
        self.processes.close()
        self.database.close()


@contextmanager
def serving(home: Path, *, keys: bool = False) -> Iterator[Served]:
    """The service over raw files in <home>/raw."""
    write_raw(home / "raw")
    with closing(Served(home, keys=keys)) as served:
        yield served


@contextmanager
def working(served: Served) -> Iterator[None]:
    """Within the block, what is queued is carried out, by processes of this machine."""
    served.dispatcher.stop.clear()
    thread = threading.Thread(target=served.dispatcher.run)
    thread.start()
    try:
        yield
    finally:
        served.dispatcher.stop.set()
        thread.join()
        served.dispatcher.stop.clear()
        served.processes.close()
