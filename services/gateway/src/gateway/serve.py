"""`gateway`: the service itself, and its API keys.

gateway serve --home winnow --raw-root raw     a Ray, a ledger and a store of its own, on 127.0.0.1
gateway keys add|list|revoke …                 for a service that others reach
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gateway.settings import Settings
from manifest.cpus import cpus_here
from manifest.errors import InputError, run_command

BACKLOG = 128

if TYPE_CHECKING:
    from gateway.ledger.database import Database

FLAGS: dict[str, dict[str, Any]] = {
    "home": {"metavar": "DIR"},
    "store": {"metavar": "DIR|URI"},
    "raw_root": {"metavar": "DIR|URI", "action": "append"},
    "database": {"metavar": "URL"},
    "host": {},
    "port": {"type": int},
    "ray": {"metavar": "URL"},
    "ray_python": {"metavar": "PATH"},
    "cpus": {"type": int, "metavar": "N"},
    "sizes": {"metavar": "FILE"},
}


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    arguments = _parser().parse_args(argv)
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway", description="The HTTP service in front of Winnow.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="start the service; ^C ends it",
        description="Starts the service. Each flag may stand in the environment as WINNOW_<FLAG>, several roots with "
        "commas between; the token of a Ray cluster stands only there, as WINNOW_RAY_TOKEN.",
        epilog="example: gateway serve --home winnow --raw-root raw",
    )
    _settings_flags(serve)
    serve.add_argument("--keys", action="store_true", default=None, help=_help("keys"))
    serve.add_argument("--moved", action="store_true", default=None, help=_help("moved"))
    serve.set_defaults(run=_serve)
    keys = commands.add_parser("keys", help="add, list and revoke API keys").add_subparsers(required=True)
    add = keys.add_parser("add", help="make a key and print it; it is not kept anywhere")
    add.add_argument("name", help="whose it is; stands beside what is asked for with it")
    add.add_argument("--scope", action="append", required=True, help="read, build, train or admin; may be repeated")
    listing = keys.add_parser("list", help="the keys there are")
    revoke = keys.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("id", help="as `gateway keys list` shows it")
    for command, run in ((add, _add_key), (listing, _list_keys), (revoke, _revoke_key)):
        command.add_argument("--home", **FLAGS["home"], help=_help("home"))
        command.add_argument("--database", **FLAGS["database"], help=_help("database"))
        command.set_defaults(run=run)
    return parser


def _settings_flags(parser: argparse.ArgumentParser) -> None:
    for name, options in FLAGS.items():
        field = "raw_roots" if name == "raw_root" else name
        parser.add_argument(f"--{name.replace('_', '-')}", dest=field, help=_help(field), **options)


def _help(field: str) -> str:
    info = Settings.model_fields[field]
    shown = f" (default {info.default})" if info.default not in ("", (), None, False, 0) else ""
    return f"{info.description or field}{shown}"


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise InputError(f"{flag}: {first['msg']} (found {first['input']!r})") from error


def _serve(arguments: argparse.Namespace) -> None:
    import uvicorn

    settings = _settings(arguments)
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("alembic", "httpx2", "httpcore2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listening = _listen(settings)
    try:
        with running(settings) as app:
            url = f"http://{_shown(settings.host)}:{listening.getsockname()[1]}"
            print(url, flush=True)
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, server_header=False)
            server = uvicorn.Server(config)
            handle_exit = server.handle_exit

            def end(sig: int, frame: FrameType | None) -> None:
                app.state.service.dispatcher.stop.set()  # open event streams end, instead of being cut off
                handle_exit(sig, frame)

            server.handle_exit = end  # type: ignore[method-assign]
            server.run(sockets=[listening])
    except KeyboardInterrupt:
        logging.getLogger("gateway").info("stopped; what was going on goes on at the next start")
    finally:
        listening.close()


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the service as ^C does, with what it started."""
    raise SystemExit(0)


@contextmanager
def running(settings: Settings) -> Iterator[Any]:
    """The app, with its dispatcher working behind it until the block ends. Raises InputError."""
    from gateway.app import create_app
    from gateway.jobs.dispatch import Dispatcher, Terms
    from gateway.ledger import leases, site
    from gateway.ledger.database import open_database
    from gateway.service import Service
    from manifest.store import open_store

    settings.home.mkdir(parents=True, exist_ok=True)
    settings.jobs.mkdir(exist_ok=True)
    database = open_database(settings.database_url)
    with _alone(settings, database):
        with database.write() as session:
            if database.is_sqlite:  # whoever held leases is gone
                leases.release(session)
            else:
                site.claim(session, str(settings.home.absolute()), settings.store_uri, moved=settings.moved)
        cluster = _cluster(settings)
        terms = Terms(
            owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"[:64],
            jobs=settings.jobs,
            store=settings.store_uri,
            cpus=_cpus(settings),
            lease_s=settings.lease_s,
            poll_s=settings.poll_s,
            max_faults=settings.max_faults,
        )
        dispatcher = Dispatcher(database, cluster, terms)
        thread = threading.Thread(target=dispatcher.run, name="dispatcher")
        service = Service(settings, database, open_store(settings.store_uri), dispatcher)
        thread.start()
        try:
            yield create_app(service)
        finally:
            dispatcher.stop.set()
            thread.join()
            cluster.close()
            database.close()


def _cluster(settings: Settings) -> Any:
    from gateway.jobs.cluster import RayCluster
    from gateway.jobs.local_ray import LocalRay

    if settings.ray:
        return RayCluster(settings.ray, settings.ray_token, settings.ray_python or sys.executable)
    return LocalRay(_cpus(settings), settings.home / "ray.log")


def _cpus(settings: Settings) -> int:
    return settings.cpus or cpus_here()


@contextmanager
def _alone(settings: Settings, database: Database) -> Iterator[None]:
    """A SQLite ledger is for one service, and so is a home whose jobs are on a Ray of the service's own.

    Raises InputError if another has it.
    """
    with ExitStack() as held:
        if database.is_sqlite:
            file = Path(str(database.engine.url.database))
            held.enter_context(_locked(file, file.with_name(f"{file.name}.lock")))
        if not settings.ray:
            held.enter_context(_locked(settings.home, settings.home / ".lock"))
        yield


@contextmanager
def _locked(what: Path, file: Path) -> Iterator[None]:
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another gateway runs over {what}; use that one, stop it, or give this one another --home"
            ) from error
        yield


def _listen(settings: Settings) -> socket.socket:
    """The socket, open before anything is started. Raises InputError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)  # from here on clients wait instead of being refused
    except OSError as error:
        listening.close()
        raise InputError(
            f"--host {settings.host} --port {settings.port}: {error.strerror}; another program may have it, choose "
            "another --port"
        ) from error
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _add_key(arguments: argparse.Namespace) -> None:
    from gateway.ledger import keys

    with _ledger(arguments) as database, database.write() as session:
        print(keys.add(session, database.now(session), arguments.name, arguments.scope))


def _list_keys(arguments: argparse.Namespace) -> None:
    from gateway.ledger import keys

    with _ledger(arguments) as database, database.read() as session:
        for row in keys.listed(session):
            state = "revoked" if row.revoked else "valid"
            print(f"{row.id}  {state}  {row.scopes}  {row.name}")


def _revoke_key(arguments: argparse.Namespace) -> None:
    from gateway.ledger import keys

    with _ledger(arguments) as database, database.write() as session:
        keys.revoke(session, database.now(session), arguments.id)


@contextmanager
def _ledger(arguments: argparse.Namespace) -> Iterator[Any]:
    from gateway.ledger.database import open_database

    settings = _settings(arguments)
    file = settings.home / "ledger.db"
    if not settings.database and not file.exists() and arguments.run is not _add_key:
        raise InputError(f"there is no ledger at {file}; give the service's --home, or its --database")
    database = open_database(settings.database_url)
    try:
        yield database
    finally:
        database.close()


if __name__ == "__main__":
    main()
