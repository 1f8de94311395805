"""A folder or a bucket -> named bytes that are whole or absent, and can be created once only.

Names are relative, with slashes. Local paths, ``s3://bucket/prefix`` and ``gs://bucket/prefix``; keys, regions and endpoints
come from the environment (AWS_*, GOOGLE_*), as everywhere.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from manifests.errors import MissingError, StorageError

# pathlib folds the two slashes of a URL into one.
REMOTE = re.compile(r"^(s3|gs)://?(?=[^/])")
# The client repeats refused requests by itself; what it gives up on, such as a body cut short, is asked for again here.
ATTEMPTS, FIRST_PAUSE_S = 6, 0.1
RETRIES: Any = {"max_retries": 8, "retry_timeout": datetime.timedelta(seconds=120)}
T = TypeVar("T")


class LocalStore:
    """A folder of this machine. Raises StorageError where the disk refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def read(self, name: str) -> bytes:
        with storage(self.root / name):
            return (self.root / name).read_bytes()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        with storage(self.root / name), (self.root / name).open("rb") as file:
            file.seek(start)
            return _whole(file.read(length), length, f"{self.root / name}")

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def size(self, name: str) -> int:
        with storage(self.root / name):
            return (self.root / name).stat().st_size

    def age_s(self, name: str) -> float:
        """Seconds since the last write; infinite when it is gone."""
        try:
            return time.time() - (self.root / name).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def names(self, folder: str) -> list[str]:
        """The files directly in ``folder``, sorted, as names of this store."""
        with storage(self.root / folder):
            try:
                return sorted(f"{folder}/{e.name}" for e in os.scandir(self.root / folder) if e.is_file())
            except FileNotFoundError:
                return []

    def walk(self) -> list[str]:
        """Every file below the root, sorted; a link that leads out of it is not part of it."""
        with storage(self.root):
            if self.root.is_file():
                return [""]
            base = self.root.resolve()
            files = [Path(folder) / n for folder, _, names in os.walk(self.root) for n in names]
            # Only a link can lead out, and asking every file where it really lies takes longer than listing it.
            inside = [p for p in files if not p.is_symlink() or p.resolve().is_relative_to(base)]
            return sorted(p.relative_to(self.root).as_posix() for p in inside)

    def strays(self) -> list[str]:
        """The links to files that ``walk`` leaves out because they lead out of the root, sorted."""
        base = self.root.resolve()
        found = [Path(folder) / n for folder, _, names in os.walk(self.root) for n in names]
        out = [p for p in found if p.is_symlink() and not p.resolve().is_relative_to(base)]
        return sorted(p.relative_to(self.root).as_posix() for p in out)

    def create(self, name: str, data: bytes) -> bool:
        """Write ``name`` whole; False, and nothing changed, when it is there already."""
        path = self.root / name
        with storage(path):
            fresh = self._fresh(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # link is atomic and refuses to replace: the one exclusive create that also has its contents.
                os.link(fresh, path)
            except FileExistsError:
                return False
            finally:
                fresh.unlink(missing_ok=True)
            fsync_folder(path.parent)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Write ``name`` whole, in place of what was there."""
        with storage(self.root / name):
            fresh = self._fresh(data)
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh, self.root / name)

    def publish(self, finished: Path, name: str) -> None:
        """Take over a local file that is complete and synced."""
        path = self.root / name
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(finished, path)
            fsync_folder(path.parent)

    def delete(self, name: str) -> None:
        with storage(self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def move(self, name: str, to: str) -> None:
        with storage(self.root / name):
            (self.root / to).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.root / name, self.root / to)

    def scratch(self) -> Path:
        """A local folder for files that ``publish`` will take; on the same disk here, so that a rename is enough."""
        with storage(self.root / "tmp"):
            (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        return self.root / "tmp"

    def _fresh(self, data: bytes) -> Path:
        path = self.scratch() / f"{uuid.uuid4().hex}.tmp"
        try:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path


class ObjectStore:
    """A prefix of an S3 or Google bucket. Requests are repeated; StorageError when the store goes on refusing."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
        except ImportError:
            raise StorageError(f"{url}: buckets need obstore; pip install 'maquette[cloud]'") from None
        self.url = url.rstrip("/")
        self._o = obstore
        bucket, _, self._prefix = self.url.partition("://")[2].partition("/")
        try:
            self._store = obstore.store.from_url(f"{self.url.partition('://')[0]}://{bucket}", retry_config=RETRIES)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise StorageError(f"{url}: {_first_line(error)}; check the credentials in the environment") from None

    def read(self, name: str) -> bytes:
        # Size first: a body cut short by a proxy would otherwise pass for the whole.
        return self._try(name, lambda key: _whole(*self._body(key), f"{self.url}/{name}"))

    def read_range(self, name: str, start: int, length: int) -> bytes:
        def get(key: str) -> bytes:
            found = bytes(self._o.get_range(self._store, key, start=start, length=length))
            return _whole(found, length, f"{self.url}/{name}")

        return self._try(name, get)

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except MissingError:
            return False
        return True

    def size(self, name: str) -> int:
        return int(self._try(name, lambda key: self._o.head(self._store, key)["size"]))

    def age_s(self, name: str) -> float:
        """Seconds since the last write, by the store's clock; infinite when it is gone."""
        try:
            found = self._try(name, lambda key: self._o.head(self._store, key))
        except MissingError:
            return float("inf")
        return (datetime.datetime.now(datetime.UTC) - found["last_modified"]).total_seconds()

    def names(self, folder: str) -> list[str]:
        """The objects directly under ``folder``, sorted, as names of this store."""

        def listed(key: str) -> list[str]:
            found = self._o.list_with_delimiter(self._store, key)["objects"]
            return sorted(f"{folder}/{o['path'].rsplit('/', 1)[1]}" for o in found)

        return self._try(folder, listed)

    def walk(self) -> list[str]:
        """Every object below the prefix, sorted."""

        def listed(key: str) -> list[str]:
            start = f"{self._prefix}/" if self._prefix else ""
            found = [o["path"] for page in self._o.list(self._store, self._prefix or None) for o in page]
            return sorted(path.removeprefix(start) for path in found if path.startswith(start))

        return self._try("", listed)

    def create(self, name: str, data: bytes) -> bool:
        """PUT with If-None-Match: False, and nothing changed, when the object is there already."""

        def put(key: str) -> bool:
            try:
                self._o.put(self._store, key, data, mode="create", use_multipart=False)
            except self._o.exceptions.AlreadyExistsError:
                # A first try may have succeeded while its answer got lost: then the object is ours.
                return self.read(name) == data
            return True

        return self._try(name, put)

    def replace(self, name: str, data: bytes) -> None:
        self._try(name, lambda key: self._o.put(self._store, key, data, use_multipart=False))

    def publish(self, finished: Path, name: str) -> None:
        """Upload a local file and remove it; nothing is visible before the last byte has arrived."""
        self._try(name, lambda key: self._o.put(self._store, key, finished))
        if self.size(name) != finished.stat().st_size:
            raise StorageError(f"{self.url}/{name}: the upload has another size than the file; run again")
        finished.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        with contextlib.suppress(MissingError):
            self._try(name, lambda key: self._o.delete(self._store, key))

    def move(self, name: str, to: str) -> None:
        self._try(name, lambda key: self._o.rename(self._store, key, self._key(to)))

    def scratch(self) -> Path:
        folder = Path(tempfile.gettempdir()) / f"maquette-{os.getuid()}"
        with storage(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _body(self, key: str) -> tuple[bytes, int]:
        answer = self._o.get(self._store, key)
        return bytes(answer.bytes()), answer.meta["size"]

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _try(self, name: str, call: Callable[[str], T]) -> T:
        """``call`` with the object's key, again after a pause while the store fails in a way that may pass."""
        e = self._o.exceptions
        for attempt in range(ATTEMPTS):
            try:
                return call(self._key(name))
            except (FileNotFoundError, e.NotFoundError):
                raise MissingError(f"{self.url}/{name}: No such file or object") from None
            except (e.PermissionDeniedError, e.UnauthenticatedError) as error:
                raise StorageError(f"{self.url}/{name}: {_first_line(error)}; check the bucket's permissions") from None
            except (e.BaseError, OSError, _CutShort) as error:
                if attempt + 1 == ATTEMPTS:
                    raise StorageError(
                        f"{self.url}/{name}: {_first_line(error)}, {ATTEMPTS} times; finished work is kept: run again "
                        "when the store answers"
                    ) from None
                time.sleep(FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


Store = LocalStore | ObjectStore


def open_store(root: str | Path) -> Store:
    """The store behind a path or URL; nothing is read or made. Raises StorageError for a scheme it does not know."""
    text = str(root)
    if REMOTE.match(text):
        return ObjectStore(REMOTE.sub(r"\1://", text))
    if re.match(r"^\w\w+:/", text):
        raise StorageError(f"{text}: only local paths, s3:// and gs:// are known")
    return LocalStore(Path(text))


@contextlib.contextmanager
def storage(path: Path | str) -> Iterator[None]:
    """Turn an OSError into a StorageError that names ``path`` and says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise MissingError(f"{path}: No such file or directory") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{path}: {reason}; finished work is kept: free space or mend the storage, then run again"
        ) from None


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _CutShort(Exception):
    """A body arrived with fewer bytes than asked for."""


def _whole(data: bytes, length: int, what: str) -> bytes:
    if len(data) != length:
        raise _CutShort(f"{what}: {len(data)} bytes arrived of {length}")
    return data


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
