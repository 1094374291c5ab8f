"""`morphable train`: train a model on a dataset and write a run folder."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphable.cli.arguments import Data
from morphable.cli.run_config import Choices, new_run, resumed_run

if TYPE_CHECKING:
    from morphable.train.events import Listener, TrainingEvent


def train(
    family: Annotated[
        str, Parameter(help="model family, e.g. pca, pca-mlp, coma, spiralnet, spiralnet++")
    ],
    /,
    *,
    data: Data,
    out: Annotated[Path, Parameter(help="run folder to write")],
    latent: Annotated[
        str | None, Parameter(help="latent size: a total, or PART=N,PART=N; default: the recipe's")
    ] = None,
    split: Annotated[
        str | None,
        Parameter(help="split to train on; default: subject, or frames if under 20 subjects"),
    ] = None,
    epochs: Annotated[int | None, Parameter(help="passes over the training meshes")] = None,
    recipe: Annotated[
        Literal["fast", "paper"],
        Parameter(help="fast: our settings, chosen for a CPU; paper: the published settings"),
    ] = "fast",
    stages: Annotated[
        str | None,
        Parameter(
            help="training stages to run in turn, each for --epochs; "
            "lamm: autoencode or autoencode,manipulate"
        ),
    ] = None,
    seed: Annotated[int | None, Parameter(help="seed of all random draws")] = None,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="where to train")] = "cpu",
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            help="a setting: model.KEY=VALUE, train.KEY=VALUE or, for one stage, "
            "train.STAGE.KEY=VALUE; repeatable",
            negative="",
        ),
    ] = None,
    config: Annotated[
        Path | None, Parameter(help="TOML file with [model] and [train] tables")
    ] = None,
    resume: Annotated[bool, Parameter(help="resume the run in --out", negative="")] = False,
) -> None:
    """Train a model family on a dataset and write a run folder."""
    from morphable.files import require_new
    from morphable.lock import LOCK, require_idle

    choices = Choices(recipe, latent, split, epochs, stages, seed, tuple(set_ or ()), config)
    if resume:
        choices.require_none()
        if (out / "model" / "model.json").exists():
            print(f"{out}: this run is finished, there is nothing to resume")
            return
    else:
        require_idle(out)
        require_new(out, besides=LOCK)

    from morphable.ops.allocator import keep_freed_memory
    from morphable.train.checkpoint import read_metrics
    from morphable.train.distributed import workers
    from morphable.train.loop import Interrupted
    from morphable.train.outcome import kept_epoch, little_gained, transported_note
    from morphable.train.run import run

    if resume:
        chosen, split_data = resumed_run(family, data, out)
    else:
        chosen, split_data = new_run(family, data, choices)
    keep_freed_memory()
    with workers(device) as here, _progress_bar(here.rank == 0) as listener:
        try:
            model = run(chosen, split_data, out, here, resume, listener)
        except Interrupted:
            raise KeyboardInterrupt(_how_to_resume(family, data, out)) from None
        if here.rank == 0:
            parameters = sum(p.numel() for p in model.parameters())
            print(
                f"{out}: {family}, latent size {model.latent} ({model.parts.described}), "
                f"{parameters:,} trainable parameters"
            )
            metrics = read_metrics(out / "metrics.jsonl")
            if kept := kept_epoch(model.provenance, metrics):
                print(kept)
            if made := transported_note(model.provenance):
                print(made)
            if note := little_gained(model.provenance, metrics, split_data):
                print(note)
            print(f"next: {_command(family, 'evaluate', out)}")


def _how_to_resume(family: str, data: Path, out: Path) -> str:
    command = _command(family, "train", family, "--data", data, "--out", out, "--resume")
    return f"{out}: stopped, everything is saved; resume it with `{command}`"


def _command(family: str, *words: str | Path) -> str:
    """Return a command line to show, with --family-from if the family is outside the package."""
    from morphable.models.families import ADDED

    source = ["--family-from", ADDED[family]] if family in ADDED else []
    return shlex.join(["morphable", *map(str, words), *source])


@contextlib.contextmanager
def _progress_bar(show: bool) -> Iterator[Listener | None]:
    """Show a progress bar over the steps, with the validation error in mm and the time left.

    If standard error is not a terminal, print one line per epoch instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not show:  # one of several processes prints
        yield None
        return
    console = Console(stderr=True)
    quiet = not console.is_terminal
    columns = (
        "{task.fields[place]}",
        BarColumn(),
        "{task.percentage:>3.0f} %",
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet) as bars:
        task = bars.add_task("", total=None, place="epoch 0", note="")
        note = ""

        def listen(event: TrainingEvent) -> None:
            nonlocal note
            terms = "  ".join(f"{name} {value:.4g}" for name, value in event.terms.items())
            if event.epoch_ended:
                note = _validation(event)
                if quiet:
                    print(f"{event.place}  {terms}  {note}", flush=True)
            bars.update(
                task,
                total=event.total_steps,
                completed=event.step,
                place=event.place,
                note=f"{terms}  {note}",
            )

        yield listen


def _validation(event: TrainingEvent) -> str:
    if event.validation_mm is None:
        return "not validated, the last epoch is kept"
    return f"validation {event.validation_mm:.3f} mm (lowest that counts {event.best_mm:.3f})"
