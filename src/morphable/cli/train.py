"""`morphable train`, `evaluate` and `report`: from a dataset to a measured model."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.data.dataset import SplitDataset
    from morphable.models.training import TrainConfig
    from morphable.train.events import Listener, TrainingEvent
    from morphable.train.run import RunConfig

Model = Annotated[Path, Parameter(help="a run folder, a model folder or a model zip")]


def train(
    family: Annotated[
        str, Parameter(help="model family, e.g. pca, pca-mlp, coma, spiralnet, spiralnet++")
    ],
    /,
    *,
    data: Annotated[Path, Parameter(help="dataset folder")],
    out: Annotated[Path, Parameter(help="run folder to write")],
    latent: Annotated[str | None, Parameter(help="code length: a total, or part=N,part=N")] = None,
    split: Annotated[
        str | None, Parameter(help="split to train on; else subject, or frames under 20 subjects")
    ] = None,
    epochs: Annotated[int | None, Parameter(help="passes over the training meshes")] = None,
    recipe: Annotated[
        Literal["fast", "paper"], Parameter(help="ours, or the paper's to the letter")
    ] = "fast",
    stages: Annotated[
        str | None,
        Parameter(
            help="what to learn in turn, --epochs each; lamm: autoencode or autoencode,manipulate"
        ),
    ] = None,
    seed: Annotated[int | None, Parameter(help="seed of every random draw")] = None,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="where to train")] = "cpu",
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            help="a setting, model.KEY=VALUE or train.KEY=VALUE; may be repeated",
            negative="",
        ),
    ] = None,
    config: Annotated[
        Path | None, Parameter(help="TOML file with [model] and [train] tables")
    ] = None,
    resume: Annotated[bool, Parameter(help="go on with the run in --out", negative="")] = False,
) -> None:
    """Train a model family on a dataset and write a run folder."""
    from morphable.ops.allocator import keep_freed_memory
    from morphable.train.distributed import workers
    from morphable.train.loop import Interrupted
    from morphable.train.run import run

    choices = {
        "latent": latent,
        "split": split,
        "epochs": epochs,
        "seed": seed,
        "set": set_,
        "config": config,
    }
    choices["stages"] = stages
    given = [f"--{name}" for name, value in choices.items() if value is not None]
    if resume:
        if given or recipe != "fast":
            raise InputError(
                f"--resume goes on with the run as it is; {(given or ['--recipe'])[0]} cannot be changed"
            )
        if (out / "model" / "model.json").exists():
            print(f"{out}: this run is finished, there is nothing to resume")
            return
        chosen, split_data = _resumed(family, data, out)
    else:
        chosen, split_data = _chosen(
            family, data, recipe, latent, split, epochs, stages, seed, set_ or [], config
        )
    keep_freed_memory()
    with workers(device) as here, _training_bar(here.rank == 0) as listener:
        try:
            model = run(chosen, split_data, out, here, resume, listener)
        except Interrupted:
            words = [
                "morphable",
                "train",
                family,
                "--data",
                str(data),
                "--out",
                str(out),
                "--resume",
            ]
            command = shlex.join([*words, *_named_family(family)])
            raise KeyboardInterrupt(
                f"{out}: stopped, everything is saved; go on with `{command}`"
            ) from None
        if here.rank == 0:
            parameters = sum(p.numel() for p in model.parameters())
            print(f"{out}: {family}, latent size {model.latent}, {parameters:,} trained parameters")
            words = ["morphable", "evaluate", str(out), *_named_family(family)]
            print(f"next: {shlex.join(words)}")


def _named_family(family: str) -> list[str]:
    """The words that name a family from outside the package; none for one of its own."""
    from morphable.models.families import ADDED

    return ["--family-from", ADDED[family]] if family in ADDED else []


def _resumed(family: str, data: Path, out: Path) -> tuple[RunConfig, SplitDataset]:
    """The run's own configuration; its dataset may have moved since, but not changed."""
    from morphable.data.dataset import load_dataset
    from morphable.train.run import RecordedRun

    recorded = RecordedRun.read(out)
    if recorded.config.family != family:
        raise InputError(f"{out}: was started as {recorded.config.family}, not {family}")
    dataset = load_dataset(data)
    if dataset.info["content_hash"] != recorded.content_hash:
        raise InputError(
            f"{out}: was started on {recorded.path} as it was then; {data} holds other meshes or labels"
        )
    return recorded.config, dataset.split(recorded.split)


def _chosen(
    family: str,
    data: Path,
    recipe: str,
    latent: str | None,
    split: str | None,
    epochs: int | None,
    stages: str | None,
    seed: int | None,
    settings: list[str],
    config: Path | None,
) -> tuple[RunConfig, SplitDataset]:
    """The recipe, changed by the config file, then by the flags, then by --set."""
    from morphable.config import parse_settings, with_overrides
    from morphable.data.dataset import load_dataset
    from morphable.models.families import family as find
    from morphable.models.families import with_latent
    from morphable.train.run import RunConfig

    row = find(family).recipe(recipe)
    tables = _config_tables(config, family) if config else {"data": {}, "model": {}, "train": {}}
    overrides = parse_settings(settings)
    train_table = tables["train"]
    divided = load_dataset(data).split(split or tables["data"].get("split"))
    model = with_overrides(row.model, tables["model"], f"{config}: model")
    model = with_latent(model, latent) if latent is not None else model
    model = with_overrides(model, overrides.get("model", {}), "--set model")
    flags: dict[str, Any] = {"epochs": epochs, "stages": stages, "seed": seed}
    flags = {key: value for key, value in flags.items() if value is not None}
    if row.train is None:
        refused = [f"--{key}" for key in flags] + [
            f"train.{key}" for key in (train_table | overrides.get("train", {}))
        ]
        if refused:
            raise InputError(
                f"{refused[0]}: {family} is estimated in closed form and takes no training setting"
            )
        return RunConfig(family, model, None, recipe), divided
    training = row.train.with_overrides(train_table, f"{config}: train")
    training = training.with_overrides(flags, "train")
    training = training.with_overrides(overrides.get("train", {}), "--set train")
    _check_stage_settings(family, training, overrides.get("train", {}))
    return RunConfig(family, model, training, recipe), divided


def _check_stage_settings(family: str, training: TrainConfig, values: Mapping[str, str]) -> None:
    """InputError if a setting is for a stage that the family lacks or the run leaves out."""
    from morphable.models.base import LearnedModel
    from morphable.models.families import family as find
    from morphable.train.stages import check_stages

    kind = find(family).model
    assert issubclass(kind, LearnedModel)
    check_stages(family, training, kind.stages)
    for key in values:
        stage, dot, _ = key.partition(".")
        if dot and stage not in (training.stages or kind.stages[:1]):
            leading = ",".join(kind.stages[: kind.stages.index(stage) + 1])
            raise InputError(
                f"--set train.{key}: this run leaves the stage {stage} out; add --stages {leading}"
            )


def _config_tables(path: Path, family: str) -> dict[str, dict[str, Any]]:
    """The tables of a --config file, which may be the config.toml of another run: its split counts,
    its data do not.
    """
    from morphable.train.checkpoint import RUN_FORMAT, check_run_format
    from morphable.train.run import read_toml

    tables: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}}
    content = read_toml(path)
    check_run_format(path, content.pop("format_version", RUN_FORMAT))  # a person writes none
    for name, table in content.items():
        if name not in tables or not isinstance(table, dict):
            raise InputError(
                f"{path}: expected the tables [data], [model] and [train], got {name!r}"
            )
        tables[name] = {
            key: value for key, value in table.items() if key not in ("family", "recipe")
        }
        if table.get("family", family) != family:
            raise InputError(f"{path}: is for the family {table['family']}, not {family}")
    return tables


@contextlib.contextmanager
def _training_bar(show: bool) -> Iterator[Listener | None]:
    """A progress bar over the steps, with the validation error in mm and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not show:
        yield None
        return
    console = Console(stderr=True)
    columns = (
        "epoch {task.fields[epoch]}",
        BarColumn(),
        "{task.percentage:>3.0f} %",
        TextColumn("{task.fields[note]}"),
    )
    quiet = not console.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet
    ) as bars:
        task = bars.add_task("", total=None, epoch="0", note="")
        note = ""

        def listen(event: TrainingEvent) -> None:
            nonlocal note
            terms = "  ".join(f"{name} {value:.4g}" for name, value in event.terms.items())
            epoch = f"{event.epoch + 1}/{event.epochs}"
            if event.epoch_ended:
                note = _validation(event)
                if quiet:
                    print(f"epoch {epoch}  {terms}  {note}", flush=True)
            bars.update(
                task,
                total=event.total_steps,
                completed=event.step,
                epoch=epoch,
                note=f"{terms}  {note}",
            )

        yield listen


def _validation(event: TrainingEvent) -> str:
    if event.validation_mm is None:
        return "not validated, the last epoch is kept"
    return f"validation {event.validation_mm:.3f} mm (best {event.best_mm:.3f})"


def evaluate(
    model: Model,
    /,
    *,
    data: Annotated[
        Path | None, Parameter(help="dataset folder; else the one the model was trained on")
    ] = None,
    split: Annotated[
        str | None, Parameter(help="[NAME:]train|val|test; else the run's own split and test")
    ] = None,
    json: Annotated[Path | None, Parameter(help="also write the measures to this file")] = None,
) -> None:
    """Measure a model on held-out meshes, beside the mean shape and PCA at equal size.

    On a run's own split it writes evaluation.json into the run folder; otherwise only --json does.
    """
    from morphable.cli.output import print_table
    from morphable.evaluate.evaluation import Evaluation
    from morphable.evaluate.protocol import chosen_subset, open_dataset
    from morphable.evaluate.record import Measured
    from morphable.files import require_writable, write_json
    from morphable.models.io import load

    if json is not None:
        require_writable(json)
    loaded = load(model)
    divided, subset = chosen_subset(loaded, open_dataset(loaded, data), split)
    measured = Measured.of(Evaluation.of(loaded, divided, subset))
    if (model / "config.toml").exists() and split is None and data is None:
        measured.write(model)
    if json is not None:
        write_json(json, measured.measures)
    print_table(*evaluation_table(loaded.family, measured.measures))


def evaluation_table(
    family: str, result: Mapping[str, Any]
) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows of the summary that `evaluate` prints."""
    from morphable.evaluate.measure_table import MEASURES

    measure, provenance = MEASURES["vertex_error_mm"], result["provenance"]
    title = (
        f"{measure.title} in {measure.unit} on {provenance['meshes']} {provenance['part']} meshes, "
        f"split {provenance['split']}"
    )
    latent = provenance["latent"]
    named = {
        "mean shape": result["baselines"]["mean_shape"],
        f"PCA, {latent}": result["baselines"]["pca"],
    }
    rows = []
    for name, measures in (named | {f"{family}, {latent}": result["model"]}).items():
        error = measures[measure.name]
        statistics = [error[key] for key in ("mean", "std", "median", "p95", "max")]
        low, high = error["ci95"]
        numbers = [f"{number:.{measure.digits}f}" for number in (*statistics, low, high)]
        rows.append([name, *numbers[:-2], f"{numbers[-2]} .. {numbers[-1]}"])
    header = ["model, latent size", "mean", "std", "median", "95 %", "max", "mean, 95 % interval"]
    return title, header, rows


def report(
    model: Annotated[Path, Parameter(help="a run folder")],
    /,
    *,
    data: Annotated[
        Path | None, Parameter(help="dataset folder; else the one the model was trained on")
    ] = None,
) -> None:
    """Write report.html, one self-contained page, into the run folder; evaluates first where that
    was not done.
    """
    from morphable.evaluate.evaluation import Evaluation
    from morphable.evaluate.protocol import chosen_subset, open_dataset
    from morphable.evaluate.record import Measured
    from morphable.models.io import load
    from morphable.report.page import write_report
    from morphable.train.checkpoint import read_metrics

    if not (model / "config.toml").exists():
        raise InputError(f"{model}: not a run folder, it has no config.toml")
    loaded = load(model)
    dataset = open_dataset(loaded, data)
    measured = Measured.read(model, loaded, dataset)
    if measured is None:
        measured = Measured.of(Evaluation.of(loaded, *chosen_subset(loaded, dataset)))
        measured.write(model)
    write_report(measured, read_metrics(model / "metrics.jsonl"), model / "report.html")
    print(model / "report.html")
