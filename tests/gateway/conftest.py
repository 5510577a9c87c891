"""A real PostgreSQL beside SQLite, and a cluster of plain processes where Ray itself is not what is tested."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from processes import Processes, make_dispatcher
from served import Served, serving

from gateway.app import create_app
from gateway.jobs.dispatch import Dispatcher
from gateway.ledger.database import Database, open_database
from gateway.service import Service
from gateway.settings import Settings
from manifest.store import open_store

LOCAL = "http://127.0.0.1:8787"
POSTGRES_BIN = Path("/usr/lib/postgresql")
SIZES = Path(__file__).parents[2] / "recipes" / "sizes.yaml"


@pytest.fixture
def processes() -> Iterator[Processes]:
    cluster = Processes()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test session, without a database."""
    binaries = sorted(POSTGRES_BIN.glob("*/bin"))
    if not binaries:
        pytest.skip("no PostgreSQL on this machine (Debian's package postgresql)")
    directory = Path(tempfile.mkdtemp(prefix="winnow-postgres-"))
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    if user:
        shutil.chown(directory, user)
    run = {"user": user, "cwd": directory, "stdout": subprocess.DEVNULL}
    subprocess.run(
        [binaries[-1] / "initdb", "-D", directory / "data", "-U", "winnow", "-A", "trust", "-N"], check=True, **run
    )
    options = {"listen_addresses": "", "unix_socket_directories": directory, "fsync": "off", "max_connections": 200}
    server = subprocess.Popen(
        [binaries[-1] / "postgres", "-D", directory / "data", *(f"-c{k}={v}" for k, v in options.items())],
        stderr=(directory / "log").open("wb"),
        **run,
    )
    url = f"postgresql://winnow@/postgres?host={directory}"
    _wait_until(lambda: _answers(url), 30)
    yield url
    server.terminate()
    server.wait()
    shutil.rmtree(directory)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _wait_until(holds: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(0.1)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], float], None]:
    """(condition, seconds): waits until the condition holds, or fails."""
    return _wait_until


@contextmanager
def _fresh(server: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """A fresh database."""
    with _fresh(postgres) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database: SQLite, and PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        yield request.getfixturevalue("postgres_url")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def dispatcher(database: Database, processes: Processes, tmp_path: Path) -> Dispatcher:
    """A dispatcher over the database and the processes; nobody runs it yet."""
    return make_dispatcher(database, processes, tmp_path)


@pytest.fixture
def http(database: Database, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of the app over the database; raw/ in tmp_path is its root. Keywords are settings."""
    with ExitStack() as opened:

        def make(**settings: Any) -> TestClient:
            (tmp_path / "raw").mkdir(exist_ok=True)
            chosen = Settings(**{"home": tmp_path, "sizes": SIZES, **settings})
            service = Service(chosen, database, open_store(chosen.store_uri), settings.get("dispatcher"))
            client = TestClient(create_app(service), base_url=LOCAL, raise_server_exceptions=False)
            return opened.enter_context(client)

        yield make


@pytest.fixture(scope="module")
def module_http() -> Iterator[Callable[[Path, Database, Dispatcher], TestClient]]:
    """Makes a client of the app at a home, with a dispatcher that someone else runs."""
    with ExitStack() as opened:

        def make(home: Path, database: Database, dispatcher: Dispatcher) -> TestClient:
            chosen = Settings(home=home)
            service = Service(chosen, database, open_store(chosen.store_uri), dispatcher)
            return opened.enter_context(TestClient(create_app(service), base_url=LOCAL, raise_server_exceptions=False))

        yield make


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The service, where nothing is carried out until somebody works (`served.working`)."""
    with serving(tmp_path) as started:
        yield started
