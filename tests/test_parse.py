"""Text of the command line as typed values and back, and library errors in the command line's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import morphable
from conftest import ball_template
from helpers import TwoParts, shapes, two_parts
from morphable.cli.messages import message
from morphable.cli.parse import (
    format_given,
    parse_given,
    parse_latent,
    parse_moves,
    parse_part_files,
    parse_settings,
)
from morphable.edit.region import Region
from morphable.errors import InputError
from morphable.models.pca import Pca, PcaConfig

PACKAGE = Path(morphable.__file__).parent


class NamedPca(TwoParts):
    """Two parts, of which the second's dimensions have names."""

    def names_of(self, part: str) -> tuple[str, ...]:
        return ("smile", "mouth_open", "frown") if part == "expression" else ()


@pytest.fixture
def model() -> Pca:
    template = ball_template(30)
    return two_parts(Pca.estimate(template, shapes(template, 40), {}, PcaConfig(4)).eval())


@pytest.fixture
def named() -> NamedPca:
    template = ball_template(30)
    made = two_parts(Pca.estimate(template, shapes(template, 40), {}, PcaConfig(4)), NamedPca)
    assert isinstance(made, NamedPca)
    return made


# latent sizes and settings


def test_latent_sizes() -> None:
    assert parse_latent("8") == 8
    assert parse_latent("shape=4") == {"shape": 4}
    assert parse_latent(" identity = 4, expression=5") == {"identity": 4, "expression": 5}


@pytest.mark.parametrize("text", ["eight", "", "1.5", "shape=", "shape=x", "8,8", "=", "9" * 5000])
def test_texts_that_are_no_latent_size(text: str) -> None:
    with pytest.raises(InputError, match=r"--latent .*: expected a whole number of at least 1, or"):
        parse_latent(text)


def test_settings_are_sorted_into_tables() -> None:
    parsed = parse_settings(["train.epochs=3", "model.filters=wider", "train.seed=1=2"])
    assert parsed == {"train": {"epochs": "3", "seed": "1=2"}, "model": {"filters": "wider"}}


@pytest.mark.parametrize(
    "setting", ["epochs=3", "train.epochs", "data.path=x", "train.=3", ".epochs=1", ""]
)
def test_a_setting_that_is_not_one(setting: str) -> None:
    with pytest.raises(InputError, match=r"--set .*expected model\.KEY=VALUE or train\.KEY=VALUE"):
        parse_settings([setting])


def test_files_by_part() -> None:
    files = parse_part_files(["a=x.ply", "b=c=d.ply"], ["a", "b"])
    assert files == {"a": Path("x.ply"), "b": Path("c=d.ply")}
    for text in ("a", "a="):
        with pytest.raises(InputError, match=f"--part {text}: expected PART=FILE; parts are a, b"):
            parse_part_files([text], ["a", "b"])


# known parts


def test_known_parts_from_text(model: Pca) -> None:
    known = parse_given(model, ["expression=1,-2.5,3e-1", "identity=0"])
    assert {name: value.tolist() for name, value in known.items()} == {
        "expression": pytest.approx([1, -2.5, 0.3]), "identity": [0.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("expression=1,2", "expected expression= and 3 numbers"),
        ("expression=1,2,x", "expected expression= and 3 numbers"),
        ("expression=1,2,nan", "expected expression= and 3 numbers"),
        ("expression=1,2,inf", "expected expression= and 3 numbers"),
        ("expression", "expected expression= and 3 numbers"),
        ("expression=", "expected expression= and 3 numbers"),
        ("nose=1", "part 'nose': this model's parts are identity, expression"),
        ("=1", "part ''"),
    ],
)
def test_texts_that_are_no_part(model: Pca, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_given(model, [text])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("expression=mouth_open:0.8", [0, 0.8, 0]),
        ("expression=frown", [0, 0, 1]),
        ("expression=frown:0.5,smile:0.25", [0.25, 0, 0.5]),
        ("expression=1,2,3", [1, 2, 3]),
    ],
)
def test_known_parts_by_name(named: NamedPca, text: str, values: list[float]) -> None:
    assert parse_given(named, [text])["expression"].tolist() == pytest.approx(values)


def test_names_that_are_none(named: NamedPca) -> None:
    with pytest.raises(InputError, match="did you mean 'mouth_open'"):
        parse_given(named, ["expression=mouth_opn:0.8"])
    with pytest.raises(InputError, match="expected expression="):
        parse_given(named, ["expression=smile:much"])


def test_a_shown_code_is_read_back(named: NamedPca, model: Pca) -> None:
    code = torch.tensor([2.0, 0, 0.75, 0])
    shown = format_given(named, code)
    assert shown == "expression=mouth_open:0.75"
    assert torch.equal(parse_given(named, [shown])["expression"], code[1:])
    assert format_given(named, torch.zeros(4)) == "none"
    assert format_given(model, code) == ""


# moves of handles

EDGELESS = sp.csr_matrix((9, 9))


@pytest.fixture
def region() -> Region:
    return Region("palm", 0, np.ones(9, bool), np.array([5, 7]), np.array([3]), EDGELESS)


@pytest.mark.parametrize(
    "handles", [("5", "7"), ("v5", "v7"), ("h0", "h1"), ("0", "1"), ("0", "7")]
)
def test_handles_are_moved_by_number_or_by_vertex(region: Region, handles: tuple[str, str]) -> None:
    moves = parse_moves(region, [f"{handles[0]}:0,0,2", f"{handles[1]}:-1,.5,1e1"])
    assert {vertex: move.tolist() for vertex, move in moves.items()} == {
        5: [0, 0, 2], 7: [-1, 0.5, 10],
    }  # fmt: skip


@pytest.mark.parametrize("text", ["5", "5:1,2", "5:1,2,3,4", "5:1,2,nan", "5:1,2,x", ""])
def test_texts_that_are_no_move(region: Region, text: str) -> None:
    with pytest.raises(InputError, match=rf"--move {text}: expected HANDLE:dx,dy,dz .* v5:0,0,2"):
        parse_moves(region, [text])


@pytest.mark.parametrize("handle", ["a", "2", "812", "h2", "v0", "v6", "-1", "", "h", "hh1", "٣"])
def test_a_handle_that_does_not_exist_is_answered_by_those_that_do(
    region: Region, handle: str
) -> None:
    with pytest.raises(InputError, match=rf"`move` {handle}: region 'palm' .* h0=5 h1=7$"):
        parse_moves(region, [f"{handle}:0,0,1"])


def test_a_number_that_is_a_handle_and_a_vertex_is_refused() -> None:
    region = Region("palm", 0, np.ones(9, bool), np.array([1, 7]), np.array([3]), EDGELESS)
    with pytest.raises(InputError, match=r"`move` 1: .* write h1 or v1"):
        parse_moves(region, ["1:0,0,1"])
    assert list(parse_moves(region, ["h1:0,0,1", "v1:0,0,1"])) == [7, 1]


def test_a_handle_is_moved_once(region: Region) -> None:
    with pytest.raises(InputError, match="--move 5:0,0,2: this handle, vertex 5, is moved twice"):
        parse_moves(region, ["h0:0,0,1", "5:0,0,2"])


# errors: the library names arguments, the command line its flags


def test_arguments_become_flags_and_nothing_else_does() -> None:
    error = InputError("`skip_bad` and `labels`: not with `morphable data`", "skip_bad", "labels")
    assert message(error) == "--skip-bad and --labels: not with `morphable data`"
    assert message(InputError("a.csv: has no `labels` column")) == "a.csv: has no `labels` column"


def library() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "cli" not in path.relative_to(PACKAGE).parts:
            yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_library_does_not_speak_of_flags() -> None:
    flags = re.compile(r"(?<![\w(-])--[a-z]")
    found = [
        f"{name}: {text}"
        for name, tree in library()
        for text in literals(tree)
        if flags.search(text)
    ]
    assert not found
    assert flags.search("name one with --data") and not flags.search("color: var(--ink)")


def test_an_error_names_each_of_its_arguments_in_the_message() -> None:
    """Else the command line would not find them."""
    seen = 0
    for name, tree in library():
        constants = {
            target.id: " ".join(literals(node.value))
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "InputError":
                continue
            used = [n.id for n in ast.walk(node.args[0]) if isinstance(n, ast.Name)]
            text = " ".join([*literals(node.args[0]), *(constants.get(name, "") for name in used)])
            for argument in node.args[1:]:
                if isinstance(argument, ast.Constant):
                    assert f"`{argument.value}`" in text, f"{name}, line {node.lineno}: {text}"
                    seen += 1
    assert seen > 10
