"""Landmark files of spreadsheets, programs, MeshLab and Slicer: the same points from each, and what
is wrong with others.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from morphable.data.picked import landmarks_of, read_mask
from morphable.errors import InputError
from morphable.mesh.io.landmarks import read_landmarks
from morphable.mesh.template import Template

POINTS = {"nose": (1.0, 2.0, 3.0), "chin": (-4.5, 5.0, 0.25)}
PP = """<!DOCTYPE PickedPoints>
<PickedPoints>
 <DocumentData><DataFileName name="scan.ply"/></DocumentData>
 <point x="1" y="2" z="3" name="nose" active="1"/>
 <point x="-4.5" y="5" z="0.25" name="chin" active="1"/>
 <point x="0" y="0" z="0" name="unused" active="0"/>
</PickedPoints>
"""
FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {frame}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,{s}1,{s}2,3,0,0,0,1,1,1,0,nose,,
2,{t}4.5,{s}5,0.25,0,0,0,1,1,1,0,chin,,
"""


def markup(frame: str) -> str:
    sign = -1 if frame == "RAS" else 1
    points = [
        {"id": name, "label": name, "position": [sign * x, sign * y, z]}
        for name, (x, y, z) in POINTS.items()
    ]
    points.append({"id": "3", "label": "gone", "position": [], "positionStatus": "missing"})
    return json.dumps({"markups": [{"coordinateSystem": frame, "controlPoints": points}]})


FILES = {
    "a.csv": "name,x,y,z\nnose,1,2,3\nchin,-4.5,5,0.25\n",
    "b.json": json.dumps(POINTS),
    "c.json": json.dumps([{"name": n, "position": p} for n, p in POINTS.items()]),
    "d.pp": PP,
    "e.fcsv": FCSV.format(frame="LPS", s="", t="-"),
    "f.fcsv": FCSV.format(frame="0", s="-", t=""),
    "g.mrk.json": markup("LPS"),
    "h.mrk.json": markup("RAS"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_points_from_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    found = read_landmarks(tmp_path / name)
    assert found.names == tuple(POINTS) and not found.are_vertices
    np.testing.assert_allclose(found.positions, list(POINTS.values()))


BROKEN = {
    "a.csv": ("", "the file is empty"),
    "b.csv": ("name,x,y\nnose,1,2\n", "expected the columns x, y, z"),
    "c.csv": ("name,x,y,z\nnose,1,two,3\n", "'nose' has no position of three numbers"),
    "d.csv": ("name,x,y,z\nnose,1,nan,3\n", "'nose' has no position of three numbers"),
    "e.csv": ("name,x,y,z\na,1,2,3\na,1,2,3\n", "two landmarks have the name 'a'"),
    "f.csv": ("vertex,x,y,z\nnose,1,2,3\n", "expected a vertex number, got 'nose'"),
    "g.json": ("[1, 2]", "expected a list of objects"),
    "h.json": ("{", "not a readable landmark file"),
    "i.pp": ("<a><point", "not a readable landmark file"),
    "j.pp": ("<PickedPoints/>", "holds no landmarks"),
    "k.fcsv": ("# CoordinateSystem = XYZ\n1,1,2,3\n", "unknown coordinate system 'XYZ'"),
    "l.mrk.json": ('{"points": 3}', "not a readable landmark file"),
    "m.txt": ("1 2 3", "unknown landmark file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_landmarks(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(BROKEN[name][0])
    with pytest.raises(InputError, match=BROKEN[name][1]) as error:
        read_landmarks(tmp_path / name)
    assert name in str(error.value)


def test_which_vertices_they_are(tmp_path: Path, ball: Template) -> None:
    vertices = np.asarray(ball.mesh.vertices)
    rows = [3, 77, 200]
    target, own = tmp_path / "target.json", tmp_path / "template.json"
    names = ["a", "b", "c"]
    moved = {n: list(vertices[r] / 10 + 3) for n, r in zip(names, rows, strict=True)}
    target.write_text(json.dumps(moved))
    with pytest.raises(InputError, match="not which vertices"):
        landmarks_of(target, ball, "cm")
    picked = {n: list(vertices[r] / 10 + 0.01) for n, r in zip(names, rows, strict=True)}
    own.write_text(json.dumps(picked))
    found = landmarks_of(target, ball, "cm", own)
    assert found.vertices.tolist() == rows
    np.testing.assert_allclose(found.positions, vertices[rows] + 30)
    with pytest.raises(InputError, match="is the unit right"):
        landmarks_of(target, ball, "m", own_in(tmp_path, picked, 0.01))
    with pytest.raises(InputError, match="was it picked on another one"):
        landmarks_of(target, ball, "mm", own)
    own.write_text(json.dumps({"a": [0, 0, 0]}))
    with pytest.raises(InputError, match="has no point 'b'"):
        landmarks_of(target, ball, "cm", own)


def own_in(folder: Path, picked: dict[str, list[float]], size: float) -> Path:
    path = folder / "scaled.json"
    path.write_text(json.dumps({n: [size * x for x in p] for n, p in picked.items()}))
    return path


def test_masks(tmp_path: Path) -> None:
    expected = np.isin(np.arange(9), [1, 4])
    np.save(tmp_path / "a.npy", expected)
    np.save(tmp_path / "b.npy", np.array([4, 1]))
    (tmp_path / "c.json").write_text("[1, 4]")
    (tmp_path / "d.txt").write_text("1\n4\n")
    for name in ("a.npy", "b.npy", "c.json", "d.txt"):
        assert np.array_equal(read_mask(tmp_path / name, 9), expected)
    (tmp_path / "e.txt").write_text("1\n90\n")
    with pytest.raises(InputError, match="there is no vertex 90"):
        read_mask(tmp_path / "e.txt", 9)
    with pytest.raises(InputError, match="bool or a list of vertex numbers"):
        np.save(tmp_path / "f.npy", np.ones(7, bool))
        read_mask(tmp_path / "f.npy", 9)
