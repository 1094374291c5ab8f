"""Parse what was typed: latent sizes, settings, known parts and moves of handles."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from morphable.cli.arguments import MAX_AMOUNT
from morphable.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from morphable.edit.region import Region
    from morphable.models.base import MorphableModel


def parse_latent(text: str) -> int | dict[str, int]:
    """Parse a latent size: "8" is a total, "identity=4,expression=4" gives the size of each part.

    >>> parse_latent("8"), parse_latent("identity=4,expression=4")
    (8, {'identity': 4, 'expression': 4})
    """
    try:
        if "=" not in text:
            return int(text)
        items = [item.partition("=") for item in text.split(",")]
        return {name.strip(): int(size) for name, _, size in items}
    except ValueError:
        raise InputError(
            f"--latent {text}: expected a whole number of at least 1, or PART=N,PART=N"
        ) from None


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Parse `TABLE.KEY=VALUE` texts into tables of settings.

    >>> parse_settings(["train.epochs=3", "model.filters=wider"])
    {'train': {'epochs': '3'}, 'model': {'filters': 'wider'}}
    """
    tables: dict[str, dict[str, str]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        table, dot, key = path.partition(".")
        if not (equals and dot and key) or table not in ("model", "train"):
            raise InputError(f"--set {text}: expected model.KEY=VALUE or train.KEY=VALUE")
        tables.setdefault(table, {})[key] = value
    return tables


def parse_part_files(texts: Iterable[str], parts: Iterable[str]) -> dict[str, Path]:
    """Parse `PART=FILE` texts into files by part. If a part occurs twice, the last file counts."""
    files = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (equals and file):
            raise InputError(f"--part {text}: expected PART=FILE; parts are {', '.join(parts)}")
        files[name] = Path(file)
    return files


def parse_given(model: MorphableModel, texts: Iterable[str]) -> dict[str, Tensor]:
    """Parse `PART=V[,V...]` texts, or `PART=NAME[:V][,...]` if the part's dimensions have names,
    into values (size of the part,) by part.

    Raises InputError for an unknown part or name, or if the number of values is not the part's
    size.
    """
    import torch

    known = {}
    for text in texts:
        part, equals, values = text.partition("=")
        place = model.parts[part]
        size = place.stop - place.start
        names = model.names_of(part)
        try:
            numbers = _by_name(names, values, text) if names else _numbers(values)
        except InputError:
            raise  # an InputError is a ValueError too, but has a better message than the one below
        except ValueError:
            numbers = []
        if not equals or len(numbers) != size or not all(abs(n) <= MAX_AMOUNT for n in numbers):
            raise InputError(
                f"--given {text}: expected {part}= and {size} numbers separated by commas, at most "
                f"{MAX_AMOUNT:,.0f} from zero"
            )
        known[part] = torch.tensor(numbers)
    return known


def _numbers(values: str) -> list[float]:
    return [float(value) for value in values.split(",")]


def _by_name(names: tuple[str, ...], values: str, text: str) -> list[float]:
    """Parse `NAME[:V],...` into one number per name: V, or 1 if no V follows; 0 for names that are
    left out.

    Also reads plain numbers, one per name.
    """
    from morphable.config import suggestion

    items = [item.partition(":") for item in values.split(",")]
    if not any(item[0] in names for item in items) and len(items) == len(names):
        return _numbers(values)
    numbers = dict.fromkeys(names, 0.0)
    for name, colon, value in items:
        if name not in names:
            raise InputError(f"--given {text}: there is no {name!r}; {suggestion(name, names)}")
        numbers[name] = float(value) if colon else 1.0
    return list(numbers.values())


def format_given(model: MorphableModel, code: Tensor) -> str:
    """Format the named dimensions of a code (L,) that are not zero, as `--given` reads them, or
    `none` if all are zero.

    Returns "" for a model whose dimensions have no names.
    """
    if not any(model.names_of(part) for part in model.parts):
        return ""
    texts = []
    for part in model.parts:
        values = code[model.parts[part]].tolist()
        for name, value in zip(model.names_of(part), values, strict=False):
            if value:
                texts.append(f"{part}={name}:{value:.3g}")
    return ", ".join(texts) or "none"


def parse_moves(region: Region, texts: Iterable[str]) -> dict[int, np.ndarray]:
    """`HANDLE:dx,dy,dz` texts as displacements (3,) mm by vertex."""
    import numpy as np

    moves: dict[int, np.ndarray] = {}
    for text in texts:
        handle, _, values = text.partition(":")
        try:
            step = np.array(_numbers(values))
        except ValueError:
            step = np.zeros(0)
        if step.shape != (3,) or not (np.abs(step) <= MAX_AMOUNT).all():
            raise InputError(
                f"--move {text}: expected HANDLE:dx,dy,dz in mm, as in h0:0,0,2 or "
                f"v{region.controls[0]}:0,0,2, at most {MAX_AMOUNT:,.0f} mm"
            )
        vertex = region.handle(handle)
        if vertex in moves:
            raise InputError(f"--move {text}: this handle, vertex {vertex}, is moved twice")
        moves[vertex] = step
    return moves
