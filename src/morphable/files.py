"""Read and write files: writing is atomic, so a file is whole or absent; reading errors explain
what is wrong.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import lzma
import os
import pickle
import re
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from morphable.errors import InputError

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    pickle.UnpicklingError,
    csv.Error,
    RuntimeError,
    ValueError,
    OSError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
)
"""What parsers raise on damaged files, found by damaging .npz files and checkpoints byte by byte."""


@contextlib.contextmanager
def reading(path: Path | str, fault: str, missing: str = "no such file") -> Iterator[None]:
    """Turn the failures to read one file into an InputError that names the file and its fault.

    path: the file, as the user wrote it. fault: the message if its content cannot be parsed, such
    as "not valid JSON"; the parser's own message follows it. missing: the message if there is no
    such file.

    Put nothing but the reading into the block: any error in it is reported as damage of the file.
    An InputError already names its fault and passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        # An OSError of the system has a `strerror`; one that numpy raises for damage has none.
        problem = f"cannot be read: {error.strerror}" if error.strerror else _parsed(fault, error)
        raise InputError(f"{path}: {problem}") from error
    except DAMAGE as error:
        raise InputError(f"{path}: {_parsed(fault, error)}") from error


def _parsed(fault: str, error: BaseException) -> str:
    """The fault and the first sentence of the parser's message, without a heading; later sentences
    address programmers.
    """
    lines = [line.strip() for line in str(error).splitlines() if not line.endswith(":")]
    first = next(iter(lines), "").partition(". ")[0]
    return f"{fault} ({first or type(error).__name__})"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn failures to write a file, such as a full disk, into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


TEMPORARY = re.compile(r"\..+(\.[a-z]+)\.[a-z0-9_]{8}\1|\.[^.]+\.[a-z0-9_]{8}")
"""Names of temporary files, such as `.last.pt.x1y2z3_4.pt`, and folders, such as `.model.x1y2z3_4`.
"""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. The file there replaces `path` if the block
    ends without an error, and is removed otherwise.

    Raises InputError if the folder cannot be written to or the disk is full.
    """
    with writing(path), contextlib.ExitStack() as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        undo.callback(temporary.unlink, missing_ok=True)
        yield temporary
        # Without the fsync, a crash soon after the rename could leave an empty file under `path`.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder in the parent of `path`. It becomes `path` if the block ends without
    an error, and is removed otherwise.

    Raises InputError if `path` already exists and is not an empty folder, or cannot be written.
    """
    require_new(path)
    with writing(path), contextlib.ExitStack() as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        undo.callback(shutil.rmtree, temporary, ignore_errors=True)
        try:
            yield temporary
        except InputError as error:  # it names a temporary file, which the user never sees
            text = str(error).replace(str(temporary), str(path))
            raise InputError(text, *error.arguments) from error
        temporary.chmod(0o755)
        if path.exists():
            path.rmdir()
        temporary.replace(path)


def require_new(path: Path, besides: str = "") -> None:
    """Raise InputError unless `path` is absent or a folder that holds nothing, or only the file
    `besides`, so that nothing which the user made is overwritten.
    """
    if path.exists() and not (
        path.is_dir() and all(inside.name == besides for inside in path.iterdir())
    ):
        raise InputError(f"{path}: already exists; choose another name or remove it first")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left anywhere under `folder`.
    Call it only if no other process writes there.
    """
    for path in sorted(folder.rglob(".*")):
        found = TEMPORARY.fullmatch(path.name)
        if found and path.is_dir() != bool(found[1]):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise InputError if the file cannot be written. Call it before the long computation whose
    result goes into the file.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{path}: cannot be written, {parent} is not a folder that you may write to"
        )


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically. Raises ValueError if a number is nan or infinite."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


BROKEN_JSON = "not valid JSON, the file may be truncated"


def read_json(path: Path) -> Any:
    """Read the value in a JSON file. Raises InputError if the file is missing or not JSON."""
    with reading(path, BROKEN_JSON):
        return json.loads(path.read_text(encoding="utf-8"))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed .npz file atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        values = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(file, **values)  # type: ignore[arg-type]


INFLATION, INFLATION_FLOOR = 32, 256 * 1024**2
"""A zip archive may inflate to INFLATION times its own size, or to INFLATION_FLOOR bytes if that is
more. Ours hold numbers, which shrink to a fifth at best; one that grows a thousandfold is an attack.
"""


def check_inflated_size(name: Path | str, archive: zipfile.ZipFile, members: Iterable[str]) -> None:
    """Raise InputError, which states the limit, if these members of an archive are too large when
    inflated.
    """
    file = archive.fp
    assert file is not None
    file.seek(0, os.SEEK_END)
    # Reading stops at the size that the archive states, so a false one is no way around the limit.
    check_size(name, sum(archive.getinfo(member).file_size for member in members), file.tell())


def check_size(name: Path | str, size: int, stored: int) -> None:
    """Raise InputError, which states the limit, if a file of `stored` bytes inflates to `size`."""
    limit = max(INFLATION_FLOOR, INFLATION * stored)
    if size > limit:
        raise InputError(
            f"{name}: would inflate to {size / 1e9:.1f} GB; the limit for a file of its size is "
            f"{limit / 1e9:.1f} GB"
        )


def read_npz(path: Path | IO[bytes], name: str | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file. Pickled objects are never loaded.

    path: the file, or an open stream. name: what error messages call it; by default its path.

    Raises InputError if the file is missing or damaged, or inflates beyond the limit.
    """
    name = name or str(path)
    damage = reading(name, "not a readable .npz file, it may be truncated")
    with damage, contextlib.ExitStack() as files:
        stream = files.enter_context(path.open("rb")) if isinstance(path, Path) else path
        archive = files.enter_context(np.load(stream, allow_pickle=False))
        check_inflated_size(name, archive.zip, archive.zip.namelist())
        return {key: archive[key] for key in archive.files}


def map_npy(path: Path) -> np.ndarray:
    """Open the array of an .npy file, memory-mapped and read-only.

    Raises InputError if the file is missing or damaged.
    """
    with reading(path, "not a readable .npy file, it may be truncated"):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def content_hash(*parts: np.ndarray | str | bytes) -> str:
    """Compute SHA-256 over arrays (dtype, shape and bytes) and texts, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")  # so that "ab", "c" and "a", "bc" differ
    return digest.hexdigest()
