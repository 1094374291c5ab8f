"""A run that is killed or stopped at any step and resumed ends bit for bit where an undisturbed one
ends.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import ball_template
from helpers import command, dataset, environment, in_process, real
from morphable.cli.main import main
from morphable.errors import InputError
from morphable.train.checkpoint import cut_metrics, read_checkpoint, read_metrics, write_checkpoint

EPOCHS, BATCH = 3, 4
"""48 training meshes make 12 steps an epoch, 36 in all."""
STEPS = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(
        ball_template(600), tmp_path_factory.mktemp("data") / "set", 60, subjects=20
    ).path


def options(family: str, data: Path, out: Path) -> list[object]:
    settings = [f"train.batch_size={BATCH}", "train.checkpoint_seconds=0", "model.latent=3"]
    given: list[object] = [
        "train",
        family,
        "--data",
        data,
        "--out",
        out,
        "--epochs",
        EPOCHS,
        "--seed",
        5,
    ]
    return given + [word for setting in settings for word in ("--set", setting)]


def resumption(family: str, data: Path, out: Path) -> list[object]:
    return ["train", family, "--data", data, "--out", out, "--resume"]


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The finished run of a family, trained once."""
    runs: dict[str, Path] = {}

    def run(family: str) -> Path:
        if family not in runs:
            runs[family] = tmp_path_factory.mktemp("whole") / family
            main([str(word) for word in options(family, data, runs[family])])
        return runs[family]

    return run


def same(left: Path, right: Path) -> None:
    """Equal weights, prior and metrics; only the clock may differ."""
    a, b = (load_file(run / "model" / "weights.safetensors") for run in (left, right))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a), [
        name for name in a if not torch.equal(a[name], b[name])
    ]
    rows = [
        [{**row, "seconds": 0} for row in read_metrics(run / "metrics.jsonl")]
        for run in (left, right)
    ]
    assert rows[0] == rows[1] and [row["epoch"] for row in rows[0]] == list(range(1, EPOCHS + 1))


def started(family: str, data: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*options(family, data, out)),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, f"ended before it was reached: {process.communicate()}"
        assert time.monotonic() < end
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def killed_at(at: int, family: str, data: Path, out: Path) -> None:
    """A run that is killed between step `at` and the last one.

    On a busy machine this process may look too late, after the last step; then the run is started
    anew.
    """
    for _ in range(5):
        process = started(family, data, out)
        wait_for(process, lambda: step_of(out) >= at)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if step_of(out) < EPOCHS * STEPS:
            return
        shutil.rmtree(out)


def step_of(out: Path) -> int:
    path = out / "checkpoint" / "last.pt"
    return int(read_checkpoint(path)["step"]) if path.exists() else 0


@pytest.mark.parametrize(
    ("family", "at"), [("coma", 5), ("coma", 26), ("spiralnet++", 15), ("pca-mlp", 7)]
)
def test_killed_at_some_step_and_resumed(
    data: Path, tmp_path: Path, undisturbed: Callable[[str], Path], capsys: pytest.CaptureFixture[str], family: str,
    at: int,
) -> None:  # fmt: skip
    whole, out = undisturbed(family), tmp_path / "run"
    killed_at(at, family, data, out)
    assert at <= step_of(out) < EPOCHS * STEPS and not (out / "model").exists()
    ended = in_process(capsys, *resumption(family, data, out))
    assert ended.code == 0, ended.err
    same(whole, out)
    ended = in_process(capsys, *resumption(family, data, out))
    assert ended.code == 0 and "nothing to resume" in ended.out


def test_killed_before_the_first_checkpoint(
    data: Path,
    tmp_path: Path,
    undisturbed: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    process = started("coma", data, out)
    wait_for(process, (out / "config.toml").exists)
    kill(process)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    # Killed between a line of metrics and its checkpoint, a run has a line too many.
    (out / "metrics.jsonl").write_text(
        (undisturbed("coma") / "metrics.jsonl").read_text().splitlines()[0] + "\n{"
    )
    ended = in_process(capsys, *resumption("coma", data, out))
    assert ended.code == 0, ended.err
    same(undisturbed("coma"), out)


def test_ctrl_c_saves_and_says_how_to_go_on(
    data: Path, tmp_path: Path, undisturbed: Callable[[str], Path]
) -> None:
    out = tmp_path / "run"
    process = started("coma", data, out)
    wait_for(process, lambda: step_of(out) >= 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err and "everything is saved" in err
    told = err.split("`")[1].split()
    assert told[0] == "morphable" and told[-1] == "--resume"
    assert 5 <= step_of(out) < EPOCHS * STEPS
    ended = real(*told[1:])
    assert ended.code == 0, ended.err
    same(undisturbed("coma"), out)


@pytest.fixture
def half(data: Path, tmp_path: Path, undisturbed: Callable[[str], Path]) -> Path:
    """A run folder that looks as if it had been stopped."""
    out = tmp_path / "half"
    shutil.copytree(undisturbed("coma"), out)
    shutil.rmtree(out / "model")
    return out


def damage(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda run: (run / path).write_bytes(change((run / path).read_bytes())) and None


def without_version(path: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        state = torch.load(run / path, weights_only=True)
        assert state.pop("format_version") == 2
        torch.save(state, run / path)

    return change


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "checkpoint cut short": (
        damage("checkpoint/last.pt", lambda b: b[: len(b) // 2]),
        "last.pt: not a readable",
    ),
    "checkpoint empty": (
        damage("checkpoint/last.pt", lambda b: b""),
        "last.pt: not a readable checkpoint",
    ),
    "checkpoint is text": (
        damage("checkpoint/last.pt", lambda b: b"hello"),
        "last.pt: not a readable checkpoint",
    ),
    "kept weights cut short": (
        damage("checkpoint/kept.pt", lambda b: b[:100]),
        "kept.pt: not a readable checkpoint",
    ),
    "kept weights are gone": (
        lambda run: (run / "checkpoint/kept.pt").unlink(),
        "kept.pt: no such checkpoint",
    ),
    "config cut short": (damage("config.toml", lambda b: b[:40]), "config.toml"),
    "config empty": (
        damage("config.toml", lambda b: b""),
        "config.toml: not the configuration of a run",
    ),
    "config is gone": (lambda run: (run / "config.toml").unlink(), "nothing to resume"),
    "config of another model": (
        damage("config.toml", lambda b: b.replace(b"latent = 3", b"latent = 4")),
        "last.pt",
    ),
    "unknown setting": (
        damage("config.toml", lambda b: b.replace(b"latent", b"lament")),
        "config.toml: model.lament",
    ),
    "model is no table": (
        damage("config.toml", lambda b: b"model = 3\ndata = 3\n"),
        "not the configuration of a run",
    ),
    "config of version 1": (
        damage("config.toml", lambda b: b.replace(b"format_version = 2\n", b"")),
        "is of run format version 1, but this version of morphable reads 2; train again",
    ),
    "config of a later version": (
        damage(
            "config.toml", lambda b: b.replace(b"format_version = 2\n", b"format_version = 9\n")
        ),
        "config.toml: is of run format version 9",
    ),
    "checkpoint of version 1": (
        without_version("checkpoint/last.pt"),
        "last.pt: is of run format version 1",
    ),
    "kept weights of version 1": (
        without_version("checkpoint/kept.pt"),
        "kept.pt: is of run format version 1",
    ),
    "changed by hand": (
        damage("config.toml", lambda b: b.replace(b"epochs = 3", b"epochs = -3")),
        "train.epochs",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_damaged_run_is_named(
    half: Path, data: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, words = DAMAGE[name]
    change(half)
    in_process(capsys, *resumption("coma", data, half)).refuses(str(half), words)
    assert not (half / "model").exists()


def test_another_family_other_data_and_other_settings(
    half: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process(capsys, *resumption("pca-mlp", data, half)).refuses(
        "was started as coma, not pca-mlp"
    )
    other = dataset(ball_template(600), tmp_path / "other", 60, subjects=20, seed=1).path
    in_process(capsys, *resumption("coma", other, half)).refuses("holds other meshes or labels")
    for flags in (
        ["--latent", 4],
        ["--epochs", 9],
        ["--set", "train.seed=1"],
        ["--recipe", "paper"],
    ):
        in_process(capsys, *resumption("coma", data, half), *flags).refuses(
            str(flags[0]), "cannot be changed"
        )
    in_process(capsys, *resumption("coma", data, tmp_path / "none")).refuses(
        "none: nothing to resume"
    )


def test_data_that_moved_are_still_the_same_data(
    half: Path,
    data: Path,
    tmp_path: Path,
    undisturbed: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(data, tmp_path / "moved")
    state = read_checkpoint(half / "checkpoint" / "last.pt")
    assert state["step"] == EPOCHS * STEPS
    ended = in_process(capsys, *resumption("coma", tmp_path / "moved", half))
    assert ended.code == 0, ended.err
    same(undisturbed("coma"), half)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "pwned",)  # type: ignore[return-value]

    torch.save({"step": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt: not a readable checkpoint"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt: not a checkpoint"):
        read_checkpoint(tmp_path / "list.pt")


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    state = {"a": torch.arange(3), "b": {"c": [1.5, "x"]}, "d": torch.get_rng_state()}
    write_checkpoint(tmp_path / "deep" / "a.pt", state)
    back = read_checkpoint(tmp_path / "deep" / "a.pt")
    assert (
        torch.equal(back["a"], state["a"])
        and back["b"] == state["b"]
        and torch.equal(back["d"], state["d"])
    )
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("text", "epochs", "kept"),
    [
        ("123", 2, "12"),
        ("12", 5, "12"),
        ("1{", 2, "1"),
        ("1\udcff", 2, "1"),
        ("1x2", 3, "1"),
        ("1", 0, ""),
    ],
)
def test_lines_after_the_checkpoint_are_cut(
    tmp_path: Path, text: str, epochs: int, kept: str
) -> None:
    """A digit stands for the line of that epoch; x for another value than a line holds."""
    lines = {digit: f'{{"epoch": {digit}, "step": 1, "seconds": 1.0}}\n' for digit in "123"}
    path = tmp_path / "metrics.jsonl"
    content = "".join(({"x": "5\n"} | lines).get(letter, letter) for letter in text)
    path.write_text(content, errors="surrogateescape")
    cut_metrics(path, epochs)
    assert path.read_text() == "".join(lines[digit] for digit in kept)
    path.write_text('{"a": 1}\n{"b"')
    with pytest.raises(InputError, match=r"metrics\.jsonl: not valid JSON lines"):
        read_metrics(path)
