"""A store in an S3 bucket, with a local cache of what is read from it and of what is being written.

    s3://bucket/prefix/<path>/<file>            with its SHA-256 in the object's metadata
    s3://bucket/prefix/<path>/manifest.json     created last and only if absent: the commit lock

    $WINNOW_CACHE/drafts/<store>/<path>         being written
    $WINNOW_CACHE/artifacts/<path>-<manifest>   files downloaded, each checked against its SHA-256

The cache may be deleted whenever nothing runs.

Settings are the usual AWS_* variables. Two writers of the same content do not disturb each other: what the
second finds there, it leaves. Of two writers of different content the first manifest wins; the other stops
as soon as it sees it, and the winner then puts back what the other has overwritten. A file that it still
manages to overwrite after that is refused by every reader, for its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as Bucket

from manifest.errors import CorruptArtifact, InputError, WinnowError
from manifest.identity import sha256
from manifest.record import MANIFEST, FileEntry, Manifest, parse
from manifest.store import Store, locked, write_atomic

DIGEST = "sha256"
"""The key of the object's metadata that holds the digest of a file."""

# S3 creates an object "if absent" only in one request: the file is in memory, and 5 GB are the limit.
SINGLE_REQUEST_BYTES = 64 << 20

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


class S3Store(Store):
    """A prefix of an S3 bucket. Publishing is creating the manifest."""

    def __init__(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise InputError(f"{uri} names no bucket; give s3://bucket/prefix")
        self.uri = uri
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        self._cache = Path(os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow")
        with self._explained():
            self._bucket = _connect(bucket, prefix, self._endpoint, uri)

    def manifest(self, path: str) -> Manifest | None:
        data = self._manifest_bytes(path)
        return None if data is None else parse(data, self.where(f"{path}/{MANIFEST}"))

    def list(self, path: str) -> list[str]:
        return [name for name in self.folders(path) if self._head(f"{path}/{name}/{MANIFEST}") is not None]

    def folders(self, path: str) -> Sequence[str]:
        with self._explained():
            found = obstore.list_with_delimiter(self._bucket, path or None)
        return sorted(prefix.rpartition("/")[2] for prefix in found["common_prefixes"])

    def exists(self, path: str) -> bool:
        if self._head(path) is not None:
            return True
        with self._explained():
            found = obstore.list_with_delimiter(self._bucket, path)
        return bool(found["common_prefixes"] or found["objects"])

    def sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._chunks(path):
            digest.update(chunk)
        return digest.hexdigest()

    def local(self, path: str) -> Path:
        manifest = self._manifest_bytes(path)
        if manifest is None:
            raise FileNotFoundError(self.where(f"{path}/{MANIFEST}"))
        directory = self._cached(path, manifest)
        if (directory / MANIFEST).is_file():
            return directory
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory.with_name(directory.name + ".lock")):
            for file in parse(manifest, self.where(path)).files():
                self._download(path, file, directory)
            write_atomic(directory / MANIFEST, manifest)
        return directory

    def _drafts(self) -> Path:
        return self._cache / "drafts" / sha256(f"{self._endpoint} {self.uri}".encode())[:32]

    def _commit(self, path: str, draft: Path, record: Manifest) -> None:
        if self._manifest_bytes(path) is not None:
            raise FileExistsError(self.where(path))
        for file in record.files():
            self._upload(path, draft, file, committed=False)
        manifest = record.to_json()
        try:
            with self._explained():
                obstore.put(self._bucket, f"{path}/{MANIFEST}", manifest, mode="create")
        except AlreadyExistsError as error:
            raise FileExistsError(self.where(path)) from error
        for file in record.files():
            self._upload(path, draft, file, committed=True)
        self._keep(draft, self._cached(path, manifest), manifest)

    def _upload(self, path: str, draft: Path, file: FileEntry, *, committed: bool) -> None:
        """Uploads a file of the draft, unless it is there. Raises FileExistsError once another has won."""
        key = f"{path}/{file.path}"
        while (stored := self._digest(key)) != file.sha256:
            if stored is not None and not committed and self._manifest_bytes(path) is not None:
                raise FileExistsError(self.where(path))
            create = stored is None and file.bytes <= SINGLE_REQUEST_BYTES
            with (
                contextlib.suppress(AlreadyExistsError),
                self._explained(),
            ):  # compare with what came in between
                obstore.put(
                    self._bucket,
                    key,
                    draft / file.path,
                    attributes={DIGEST: file.sha256},
                    mode="create" if create else "overwrite",
                )
                return

    def _download(self, path: str, file: FileEntry, directory: Path) -> None:
        target = directory / file.path
        if target.is_file() and target.stat().st_size == file.bytes:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.tmp")
        digest = hashlib.sha256()
        with aside.open("wb") as out:
            for chunk in self._chunks(f"{path}/{file.path}"):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != file.sha256:
            found = f"{aside.stat().st_size} bytes with SHA-256 {digest.hexdigest()[:12]}…"
            aside.unlink()
            raise CorruptArtifact(
                f"{self.where(path)}/{file.path} has {found}; the manifest says {file.bytes} bytes with "
                f"{file.sha256[:12]}…. Restore it, or delete {self.where(path)} and run the same build again"
            )
        aside.replace(target)

    def _keep(self, draft: Path, cached: Path, manifest: bytes) -> None:
        """The draft, now published, becomes the cached copy."""
        write_atomic(draft / MANIFEST, manifest)
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(cached)
        except OSError:  # another process has downloaded it already
            shutil.rmtree(draft)

    def _cached(self, path: str, manifest: bytes) -> Path:
        key = sha256(f"{self._endpoint} {self.where(path)} ".encode() + manifest)[:32]
        return self._cache / "artifacts" / f"{path.rpartition('/')[2]}-{key}"

    def _manifest_bytes(self, path: str) -> bytes | None:
        try:
            return b"".join(self._chunks(f"{path}/{MANIFEST}"))
        except FileNotFoundError:
            return None

    def _chunks(self, key: str) -> Iterator[bytes]:
        with self._explained():
            for chunk in obstore.get(self._bucket, key).stream():
                yield bytes(chunk)

    def _digest(self, key: str) -> str | None:
        """The SHA-256 of an object, from its metadata if they have it; None if there is no such object."""
        metadata = self._head(key)
        return None if metadata is None else metadata.get(DIGEST) or self.sha256(key)

    def _head(self, key: str) -> dict[str, str] | None:
        """The metadata of an object; None if there is no such object."""
        try:
            with self._explained():
                return dict(obstore.get(self._bucket, key, options={"head": True}).attributes)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what goes wrong between here and the bucket into errors that say what to do."""
        try:
            yield
        except AlreadyExistsError:
            raise
        except (BaseError, OSError) as error:
            explained = _explain(error, self.uri, self._endpoint)
            if explained is None:
                raise
            raise explained from error


def _connect(bucket: str, prefix: str, endpoint: str, uri: str) -> Bucket:
    """The bucket, set up by AWS_* variables."""
    metadata_disabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    if metadata_disabled and not any(os.environ.get(name) for name in CREDENTIALS):
        raise InputError(_no_credentials(uri))
    return Bucket(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
        },
        retry_config={"max_retries": 4, "retry_timeout": timedelta(minutes=1)},
    )


def _no_credentials(uri: str) -> str:
    return (
        f"no credentials for {uri}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure "
        "export-credentials --format env` prints them), or AWS_SKIP_SIGNATURE=true for a public bucket"
    )


def _explain(error: Exception, uri: str, endpoint: str) -> WinnowError | None:
    """The error to show for one of obstore's; None for what the caller is to handle."""
    text = str(error)
    if "NoSuchBucket" in text:
        return InputError(f"{uri}: there is no such bucket at {endpoint}; create it, or correct the name")
    if isinstance(error, FileNotFoundError):
        return None
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return InputError(f"{uri}: {endpoint} denies access with these credentials; check them and the bucket's policy")
    if "AccessKeyId" in text or "SecretAccessKey" in text or "169.254.169.254" in text:
        return InputError(_no_credentials(uri))
    if "error sending request" in text:
        return InputError(f"{uri}: {endpoint} cannot be reached; check AWS_ENDPOINT_URL and the network")
    if isinstance(error, BaseError):
        return WinnowError(f"{uri}: {endpoint} answered: {text.partition(chr(10))[0][:300]}")
    return None
