"""Read and write PLY (Turk 1994). Reading supports ascii and binary of either byte order, and any
layout, because it follows the property list of the file's header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from morphable.errors import InputError
from morphable.files import atomic_path
from morphable.mesh.io.meshfile import (
    MeshFile,
    checked_vertices,
    pack_faces,
    read_bytes,
    strip_triangles,
    to_numbers,
)
from morphable.mesh.mesh import Mesh

_KINDS = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
}
_KINDS |= {
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
}
_KINDS |= {"double": "f8", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"}
_COUNTS = {name for name, kind in _KINDS.items() if kind[0] != "f"}
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_END = re.compile(rb"(?<=[\r\n])end_header[ \t]*(\r\n|\r|\n)")
_CORNERS = ("vertex_indices", "vertex_index")
_FACE_UV = "texcoord"  # two numbers per corner of a face
_VERTEX_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
# Other properties are not parsed.
_WANTED = {"x", "y", "z", *_CORNERS, _FACE_UV, *(name for pair in _VERTEX_UV for name in pair)}


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    count_kind: str = ""  # type of the length that precedes a list; empty for a single value


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


@dataclass(frozen=True, eq=False)
class _Column:
    """One property over all rows: the concatenated values, and the number of values per row."""

    values: np.ndarray
    counts: np.ndarray


_Columns = Mapping[str, _Column]


class _Body(Protocol):
    """The content after the header. `take` reads the rows of the next element and returns its
    columns by name; `rest` is the amount of unread content.
    """

    def take(self, element: _Element) -> _Columns: ...

    def rest(self) -> int: ...


def read_ply(path: Path) -> MeshFile:
    """Read a PLY file. Elements and properties other than positions, face corners and texture
    coordinates, of vertices or of the corners of faces, are ignored.

    Raises InputError if the file is damaged, its counts differ from its header or it is not a mesh.
    """
    elements, body = _open(path)
    columns = {element.name: body.take(element) for element in elements}
    if body.rest():
        raise InputError(
            f"{path}: goes on after the last element that its header announces, the counts do not "
            "fit"
        )
    vertices = _positions(path, columns.get("vertex", {}))
    corners = _corners(columns.get("face", {}))
    strips = _corners(columns.get("tristrips", {}))
    if strips is not None and len(strips.values):
        if corners is not None and len(corners.values):
            raise InputError(f"{path}: holds faces and triangle strips, expected one of the two")
        corners = _strip_corners(strips)
    if corners is None:
        return MeshFile(Mesh(vertices, np.zeros((0, 3), np.int64)))
    mesh = Mesh(vertices, pack_faces(path, corners.values, corners.counts, len(vertices)))
    return _with_uv(path, mesh, columns.get("vertex", {}), columns.get("face", {}))


def _with_uv(path: Path, mesh: Mesh, of_vertex: _Columns, of_face: _Columns) -> MeshFile:
    """The mesh with its texture coordinates, if it has any of the usual forms."""
    sides = (mesh.faces >= 0).sum(axis=1)
    listed = of_face.get(_FACE_UV)
    if len(sides) and listed is not None and np.array_equal(listed.counts, 2 * sides):
        pairs = listed.values.reshape(-1, 2).astype(np.float64)
        uv, first, corners = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # as they come in the file
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        uv_faces = pack_faces(path, number[corners.ravel()], sides, len(uv), "texture coordinate")
        return MeshFile.textured(mesh, uv[order], uv_faces)
    for pair in _VERTEX_UV:
        if len(sides) and all(
            name in of_vertex and (of_vertex[name].counts == 1).all() for name in pair
        ):
            uv = np.stack([of_vertex[name].values for name in pair], axis=1).astype(np.float64)
            return MeshFile.textured(mesh, uv, mesh.faces)
    return MeshFile(mesh)


def _corners(columns: _Columns) -> _Column | None:
    return next((columns[name] for name in _CORNERS if name in columns), None)


def _strip_corners(strips: _Column) -> _Column:
    """The triangles of strips, whose corner -1 begins another strip, as the corners of faces."""
    rows = np.split(strips.values.astype(np.int64), np.cumsum(strips.counts)[:-1])
    pieces = [piece for row in rows for piece in np.split(row, np.flatnonzero(row == -1))]
    triangles = np.concatenate([strip_triangles(piece[piece != -1]) for piece in pieces])
    return _Column(triangles.reshape(-1), np.full(len(triangles), 3))


def read_ply_vertices(path: Path) -> np.ndarray:
    """Read only the positions (V, 3); nothing after them is read or checked. Raises InputError as
    `read_ply`.
    """
    elements, body = _open(path)
    for element in elements:
        columns = body.take(element)
        if element.name == "vertex":
            return _positions(path, columns)
    return _positions(path, {})


def write_ply(
    path: Path, mesh: Mesh, uv: np.ndarray | None = None, uv_faces: np.ndarray | None = None
) -> None:
    """Write binary little-endian PLY: float32 positions, faces of any size and, if given, texture
    coordinates for each corner of a face, which keeps seams.
    """
    faces = mesh.faces
    width = faces.shape[1]
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(mesh.vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
    )
    fields: list[tuple] = [("count", "u1"), ("corners", "<i4", (width,))]
    if uv is not None and uv_faces is not None:
        header += f"property list ushort float {_FACE_UV}\n"
        fields += [("uv_count", "<u2"), ("uv", "<f4", (width, 2))]
    rows = np.zeros(len(faces), np.dtype(fields))
    sides = (faces >= 0).sum(axis=1)
    rows["count"], rows["corners"] = sides, faces
    # A polygon with fewer corners than the largest is written without the ends of its lists.
    real = np.arange(width) < sides[:, None]
    one = np.ones((len(faces), 1), bool)
    written = [one, real.repeat(4, axis=1)]
    if uv is not None and uv_faces is not None:
        rows["uv_count"], rows["uv"] = 2 * sides, uv[uv_faces]
        written += [one.repeat(2, axis=1), real.repeat(8, axis=1)]
    content = rows.view(np.uint8).reshape(len(faces), rows.itemsize)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(f"{header}end_header\n".encode())
        file.write(mesh.vertices.astype("<f4").tobytes())
        file.write(content[np.concatenate(written, axis=1)].tobytes())


def _positions(path: Path, columns: _Columns) -> np.ndarray:
    axes = [columns[name] for name in "xyz" if name in columns]
    if len(axes) < 3 or any((axis.counts != 1).any() for axis in axes):
        raise InputError(f"{path}: not a mesh, its vertices do not have one x, y and z each")
    vertices = np.stack([axis.values for axis in axes], axis=1)
    return checked_vertices(
        path, vertices if vertices.dtype.kind == "f" else vertices.astype(np.float64)
    )


def _open(path: Path) -> tuple[list[_Element], _Body]:
    data = read_bytes(path)
    if not re.match(rb"ply[ \t]*[\r\n]", data):
        raise InputError(f"{path}: not a PLY file, it does not begin with 'ply'")
    end = _HEADER_END.search(data)
    if end is None:
        raise InputError(f"{path}: the PLY header does not end, the file may be truncated")
    start = end.end()
    if end[1] == b"\r\n" and b"\n" not in data[: end.start()]:
        start -= 1  # its lines end in \r alone, so the \n is the first byte of the body
    header = data[: end.start()].replace(b"\r", b"\n").decode("latin-1")
    order, elements = _parse_header(path, header.split("\n"))
    return elements, _Binary(path, data, start, order) if order else _Ascii(path, data[start:])


def _parse_header(path: Path, lines: list[str]) -> tuple[str, list[_Element]]:
    order: str | None = None
    elements: list[_Element] = []
    for line in lines[1:]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, _] if name in _FORMATS:
                order = _FORMATS[name]
            case ["element", name, count] if re.fullmatch("[0-9]{1,18}", count):
                elements.append(_Element(name, int(count), ()))
            case ["property", "list", count, kind, name] if (
                elements and count in _COUNTS and kind in _KINDS
            ):
                elements[-1] = _with(elements[-1], _Property(name, _KINDS[kind], _KINDS[count]))
            case ["property", kind, name] if elements and kind in _KINDS:
                elements[-1] = _with(elements[-1], _Property(name, _KINDS[kind]))
            case _:
                raise InputError(f"{path}: PLY header line {line.strip()!r} is not understood")
    if order is None:
        raise InputError(f"{path}: the PLY header names no format")
    elements = [element for element in elements if element.properties]
    _check_names(path, "element", [element.name for element in elements])
    for element in elements:
        names = [prop.name for prop in element.properties if prop.name in _WANTED]
        _check_names(path, f"property of {element.name!r}", names)
    return order, elements


def _check_names(path: Path, what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: the PLY header has the {what} {twice[0]!r} twice")


def _with(element: _Element, added: _Property) -> _Element:
    return _Element(element.name, element.count, (*element.properties, added))


class _Binary:
    """Body whose rows are packed bytes. order: the byte order as a numpy mark, `<` or `>`."""

    def __init__(self, path: Path, data: bytes, offset: int, order: str) -> None:
        self.path, self.data, self.offset, self.order = path, data, offset, order

    def rest(self) -> int:
        return len(self.data[self.offset :].strip(b"\0 \t\r\n"))  # some programs pad the end

    def take(self, element: _Element) -> _Columns:
        shortest = sum(int((prop.count_kind or prop.kind)[1]) for prop in element.properties)
        if self.offset + element.count * shortest > len(self.data):
            raise _truncated(self.path, element)
        return (self._equal_rows(element) if element.count else None) or self._ragged_rows(element)

    def _equal_rows(self, element: _Element) -> _Columns | None:
        """Read all rows at once if each list is as long as in the first row, as in most files;
        otherwise return None.
        """
        start = self.offset
        lengths = [length for _, length in self._row(element)]
        self.offset = start
        fields: list[tuple] = []
        for i, (prop, length) in enumerate(zip(element.properties, lengths, strict=True)):
            if prop.count_kind:
                fields.append((f"count{i}", self.order + prop.count_kind))
            fields.append(
                (f"value{i}", self.order + prop.kind, (length,) if prop.count_kind else ())
            )
        layout = np.dtype(fields)
        if start + element.count * layout.itemsize > len(self.data):
            return None
        rows = np.frombuffer(self.data, layout, element.count, start)
        columns = {}
        for i, (prop, length) in enumerate(zip(element.properties, lengths, strict=True)):
            if prop.count_kind and (rows[f"count{i}"] != length).any():
                return None
            columns[prop.name] = _Column(
                rows[f"value{i}"].reshape(-1), np.broadcast_to(length, element.count)
            )
        self.offset = start + rows.nbytes
        return columns

    def _ragged_rows(self, element: _Element) -> _Columns:
        rows = [self._row(element) for _ in range(element.count)]
        columns = {}
        for i, prop in enumerate(element.properties):
            values = np.frombuffer(b"".join(row[i][0] for row in rows), self.order + prop.kind)
            columns[prop.name] = _Column(values, np.array([row[i][1] for row in rows], np.int64))
        return columns

    def _row(self, element: _Element) -> list[tuple[bytes, int]]:
        """Read the row at the offset: the bytes and the length of each property."""
        row = []
        for prop in element.properties:
            length = 1
            if prop.count_kind:
                mark = self._bytes(element, int(prop.count_kind[1]))
                length = int(np.frombuffer(mark, self.order + prop.count_kind)[0])
                _check_length(self.path, prop, length)
            row.append((self._bytes(element, int(prop.kind[1]) * length), length))
        return row

    def _bytes(self, element: _Element, size: int) -> bytes:
        taken = self.data[self.offset : self.offset + size]
        if len(taken) < size:
            raise _truncated(self.path, element)
        self.offset += size
        return taken


class _Ascii:
    """Body whose rows are words of text."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.words, self.position = path, data.rstrip(b"\0").split(), 0

    def rest(self) -> int:
        return len(self.words) - self.position

    def take(self, element: _Element) -> _Columns:
        width = len(element.properties)
        if element.count * width > self.rest():
            raise _truncated(self.path, element)
        if any(prop.count_kind for prop in element.properties):
            return self._ragged_rows(element)
        block = self.words[self.position : self.position + element.count * width]
        self.position += len(block)
        one = np.ones(element.count, np.int64)
        wanted = [(i, prop) for i, prop in enumerate(element.properties) if prop.name in _WANTED]
        return {prop.name: _Column(self._numbers(prop, block[i::width]), one) for i, prop in wanted}

    def _ragged_rows(self, element: _Element) -> _Columns:
        values: list[list[bytes]] = [[] for _ in element.properties]
        counts: list[list[int]] = [[] for _ in element.properties]
        for _ in range(element.count):
            for i, prop in enumerate(element.properties):
                length = 1
                if prop.count_kind:
                    length = int(
                        to_numbers(
                            self.path, f"the length of {prop.name}", self._words(element, 1), int
                        )[0]
                    )
                    _check_length(self.path, prop, length)
                values[i] += self._words(element, length)
                counts[i].append(length)
        wanted = [(i, prop) for i, prop in enumerate(element.properties) if prop.name in _WANTED]
        return {
            prop.name: _Column(self._numbers(prop, values[i]), np.array(counts[i], np.int64))
            for i, prop in wanted
        }

    def _words(self, element: _Element, length: int) -> list[bytes]:
        taken = self.words[self.position : self.position + length]
        if len(taken) < length:
            raise _truncated(self.path, element)
        self.position += len(taken)
        return taken

    def _numbers(self, prop: _Property, words: list[bytes]) -> np.ndarray:
        return to_numbers(
            self.path, f"property {prop.name}", words, float if prop.kind[0] == "f" else int
        )


def _check_length(path: Path, prop: _Property, length: int) -> None:
    if length < 0:
        raise InputError(
            f"{path}: a list {prop.name!r} has the length {length}, the file is damaged"
        )


def _truncated(path: Path, element: _Element) -> InputError:
    return InputError(
        f"{path}: ends before its {element.count} rows of {element.name!r} do, the file may be "
        "truncated"
    )
