"""Ways to damage a file: its bytes, its words and lines, its arrays, and the values in a tree of
lists and dictionaries. Every way is drawn from a generator, so that it can be repeated.
"""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Damage = Callable[[bytes, np.random.Generator], bytes]
WORDS = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1e400",
        "3.3e38",
        "1e300",
        "0x10",
        "1_0",
        "3_0.0",
        "-0",
        "+1",
    ),
    *("-1", "0", "1", "2.5", "4294967296", "99999999999999999999", "9" * 5000, "1e9", "1000000000"),
    *(
        "",
        "x",
        "é",
        "\0",
        "\ufeff",
        '"',
        "'",
        "\\",
        "#",
        ",",
        "{",
        "}",
        "[",
        "]",
        "=",
        "null",
        "true",
    ),
    *("\n", "\r\n", " ", "\t", "../a", "a/b", "x" * 5000, "[" * 3000, '{"a":' * 3000),
)
"""What replaces a word of a text."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**9, 10**30, 1.5, -0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "../x", "/", "x" * 300, "\0", "\ud800", [], {}, [None], [[1]], [1, 2, 3], {"a": 1}),
)
"""What replaces a value of a tree."""


def pick(options: Any, random: np.random.Generator) -> Any:
    return options[int(random.integers(len(options)))]


def span(length: int, random: np.random.Generator) -> tuple[int, int]:
    """A random piece, mostly short."""
    start = int(random.integers(length + 1))
    return start, min(length, start + int(random.choice([1, 2, 4, 16, 200])))


def damaged_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Change, remove, repeat or insert one to three pieces, or cut the end off."""
    for _ in range(int(random.integers(1, 4))):
        start, end = span(len(content), random)
        piece = content[start:end]
        match int(random.integers(8)):
            case 0 | 1:
                piece = random.bytes(len(piece))
            case 2:
                piece = bytes(value ^ (1 << int(random.integers(8))) for value in piece[:1])
                piece += content[start + 1 : end]
            case 3:
                piece = pick([b"\0", b"\xff", b"\x80", b"-", b" ", b"\n"], random) * len(piece)
            case 4:
                piece = b""
            case 5:
                piece += piece
            case 6:
                piece += random.bytes(int(random.integers(1, 9)))
            case 7:
                return content[:start]
        content = content[:start] + piece + content[end:]
    return content


def damaged_text(content: bytes, random: np.random.Generator) -> bytes:
    """Replace, remove, repeat or exchange words or lines."""
    pattern = rb"\n" if random.random() < 0.3 else rb"([\s,:=/\[\]{}]+)"
    pieces = re.split(pattern, content)
    places = np.arange(len(pieces))[:: 1 if pattern == rb"\n" else 2]
    for _ in range(int(random.integers(1, 3))):
        place, other = int(pick(places, random)), int(pick(places, random))
        match int(random.integers(6)):
            case 0 | 1 | 2:
                pieces[place] = pick(WORDS, random).encode()
            case 3:
                pieces[place] = b""
            case 4:
                pieces[place] += pick([b"\n", b" "], random) + pieces[place]
            case 5:
                pieces[place], pieces[other] = pieces[other], pieces[place]
    return (b"\n" if pattern == rb"\n" else b"").join(pieces)


def damaged_array(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another kind, shape or values."""
    changed = np.array(array)
    match int(random.integers(10)):
        case 0 if changed.dtype.kind != "U":
            return changed.astype(pick(["f2", "i1", "u8", "U3", "c8", "?", ">f4", "<i8"], random))
        case 1:
            return changed[None] if random.random() < 0.5 else changed.reshape(-1)[:1]
        case 2:
            return changed[..., None]
        case 3:
            return changed.T if changed.ndim > 1 else changed.reshape(-1)[:-1]
        case 4:
            return changed.reshape(-1)[:0]
        case 5:
            return np.concatenate([changed.reshape(-1), changed.reshape(-1)])
        case 6:
            return np.array(pick(["x", 5, 1.5, np.nan, True, 1j, b"x"], random))
        case 7 if changed.dtype.kind == "f" and changed.size:
            odd = pick([np.nan, np.inf, 3e38, -3e38, 0.0], random)
            changed.reshape(-1)[int(random.integers(changed.size))] = odd
        case 8 if changed.dtype.kind in "iu":
            return changed * 0 + pick([-7, -1, 10**6, 2**31 - 1], random)
        case _ if changed.dtype.kind in "iuf" and changed.size:
            changed.reshape(-1)[int(random.integers(changed.size))] = pick([-1, 9999], random)
    return changed


def damaged_npy(content: bytes, random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    np.save(stream, damaged_array(np.load(io.BytesIO(content)), random), allow_pickle=False)
    return stream.getvalue()


def damaged_npz(content: bytes, random: np.random.Generator) -> bytes:
    """Alter, remove, exchange or rename arrays of an .npz file."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name, other = pick(list(arrays), random), pick(list(arrays), random)
    match int(random.integers(8)):
        case 0:
            del arrays[name]
        case 1:
            arrays[name], arrays[other] = arrays[other], arrays[name]
        case 2:
            arrays[name + pick(["/0", "/x", "/500", "é"], random)] = arrays.pop(name)
        case _:
            arrays[name] = damaged_array(arrays[name], random)
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def damaged_tree(tree: Any, random: np.random.Generator) -> Any:
    """Replace or remove one value somewhere in nested lists and dictionaries, which are changed."""
    root: dict[Any, Any] = {"": tree}
    node: Any = root
    key: Any = ""
    while isinstance(node[key], dict | list) and node[key] and random.random() < 0.85:
        node = node[key]
        key = pick(list(node) if isinstance(node, dict) else range(len(node)), random)
    match int(random.integers(6)):
        case 0 if node is not root:
            del node[key]
        case 1 if isinstance(node[key], torch.Tensor):
            array = damaged_array(node[key].float().numpy(), random)
            node[key] = (
                torch.from_numpy(array.astype(np.float32)) if array.dtype.kind in "iuf" else 5
            )
        case _:
            node[key] = copy.deepcopy(pick(VALUES, random))
    return root[""]


def damaged_json(content: bytes, random: np.random.Generator) -> bytes:
    return json.dumps(damaged_tree(json.loads(content), random)).encode()


def damaged_checkpoint(content: bytes, random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    torch.save(damaged_tree(torch.load(io.BytesIO(content)), random), stream)
    return stream.getvalue()
