"""Files that are either whole or absent: atomic writing, and reading that explains what is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from morphable.errors import InputError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well, and vanishes
    when it does not.

    Raises InputError where the place cannot be written or is full.
    """
    with _named(path), contextlib.ExitStack() as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        undo.callback(temporary.unlink, missing_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well, and
    vanishes otherwise.

    Raises InputError where `path` already exists and is not an empty folder, or cannot be written.
    """
    require_new(path)
    with _named(path), contextlib.ExitStack() as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        undo.callback(shutil.rmtree, temporary, ignore_errors=True)
        try:
            yield temporary
        except InputError as error:  # a file in the folder: the user knows it under its final name
            raise InputError(str(error).replace(str(temporary), str(path))) from error
        temporary.chmod(0o755)
        if path.exists():
            path.rmdir()
        temporary.replace(path)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Failures of the file system, a full disk say, as InputError about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def require_new(path: Path) -> None:
    """Raise InputError unless `path` is absent or an empty folder: nothing of the user's is ever
    overwritten.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: already exists; choose another name or remove it first")


def require_writable(path: Path) -> None:
    """Raise InputError where the file cannot be written, before the work whose result it is to
    hold.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{path}: cannot be written, {parent} is not a folder that you may write to"
        )


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; InputError where the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON, the file may be truncated ({error})") from error


DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
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
"""What NumPy and torch raise on damaged files, found by damaging some at every byte."""


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def read_npz(path: Path | IO[bytes], name: str | None = None) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Nothing pickled is ever loaded; InputError where the file is
    missing or damaged.
    """
    label = name or str(path)
    try:
        with contextlib.ExitStack() as files:
            stream = files.enter_context(path.open("rb")) if isinstance(path, Path) else path
            archive = files.enter_context(np.load(stream, allow_pickle=False))
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InputError(f"{label}: no such file") from None
    except DAMAGE as error:
        raise InputError(
            f"{label}: not a readable .npz file, it may be truncated ({brief(error)})"
        ) from error


def brief(error: BaseException) -> str:
    """The first sentence of another library's message; what follows is advice that is not meant for
    our users.
    """
    return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__


def map_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped and read-only; InputError where the file is missing
    or damaged.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except DAMAGE as error:
        raise InputError(
            f"{path}: not a readable .npy file, it may be truncated ({brief(error)})"
        ) from error


def content_hash(*parts: np.ndarray | str | bytes) -> str:
    """SHA-256 over arrays (shape, dtype and bytes) and texts, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()
