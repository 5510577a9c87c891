"""What the service is told when it starts: flags of `gateway serve`, or WINNOW_… in the environment.

Paths are made absolute and defaults filled in here; nothing below asks the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.address import LOOPBACK, PORT


class Settings(BaseSettings):
    """Everything that can be configured. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="WINNOW_", frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(Path("winnow"), description="Where the ledger, the store and the jobs' files lie.")
    store: str = Field("", description="The store (default: <home>/store); a directory that all workers see, or s3://…")
    raw_roots: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Directories or URIs under which raw files may lie (default: <home>/raw).",
        validation_alias=AliasChoices("WINNOW_RAW_ROOTS", "WINNOW_RAW_ROOT"),
    )
    database: str = Field("", description="SQLAlchemy URL of the ledger (default: SQLite in <home>/ledger.db).")
    host: str = "127.0.0.1"
    port: int = Field(PORT, ge=0, le=65535)
    ray: str = Field("", description="Dashboard of a Ray cluster, http://host:8265 (default: a Ray of its own).")
    ray_token: str = Field("", description="Token of that cluster (RAY_AUTH_TOKEN there).", repr=False)
    ray_python: str = Field("", description="Interpreter on that cluster's machines (default: this one).")
    cpus: int = Field(0, ge=0, description="CPUs that jobs may use at once (default: all of this machine's).")
    sizes: Path | None = Field(None, description="A sizes.yaml for runs that bring none.")
    keys: bool = Field(False, description="Ask for API keys even on loopback.")
    moved: bool = Field(False, description="Home or store of a shared ledger have moved; give it once.")
    max_body_bytes: int = Field(1 << 20, gt=0)
    lease_s: float = Field(15.0, gt=0)
    poll_s: float = Field(1.0, gt=0)
    max_faults: int = Field(3, ge=1, description="How often the work of an entry may die before the entry fails.")

    @field_validator("raw_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value

    @property
    def embedded(self) -> bool:
        """Whether the service runs all by itself: its own Ray, SQLite, on loopback."""
        return not self.ray and self.database_url.startswith("sqlite") and self.host in LOOPBACK

    @property
    def needs_key(self) -> bool:
        """Without a key only on loopback in embedded mode."""
        return self.keys or not self.embedded

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.home.absolute() / 'ledger.db'}"

    @property
    def store_uri(self) -> str:
        if "://" in self.store:
            return self.store
        return str((Path(self.store) if self.store else self.home / "store").absolute())

    @property
    def raw_root_uris(self) -> tuple[str, ...]:
        roots = self.raw_roots or (str(self.home / "raw"),)
        return tuple(root.rstrip("/") if "://" in root else str(Path(root).absolute()) for root in roots)

    @property
    def jobs(self) -> Path:
        """What jobs are given and say: <home>/jobs/<job>/{job.json, journal.jsonl, log}."""
        return self.home.absolute() / "jobs"
