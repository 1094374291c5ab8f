"""ONNX files of decoders and encoders, compared with torch before they are kept."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.files import atomic_path
from morphable.models.base import MorphableModel

Network = Literal["decoder", "encoder"]
TOLERANCE = 1e-5
"""Largest difference between ONNX and torch, as a share of the size of the output."""
BATCHES = (1, 2, 5)
"""Batches that the two are compared on."""
HINT = "pip install 'morphable[export]'"


@dataclass(frozen=True)
class OnnxFile:
    """What was written. difference: the largest one between ONNX and torch, as a share of the size
    of the output. inputs, outputs: names with shapes, in words.
    """

    difference: float
    inputs: str
    outputs: str


class _Decoder(nn.Module):
    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, code: Tensor) -> Tensor:
        return self.model.decode(code)


class _Encoder(nn.Module):
    """The encoder; with pinned parts that it would search, their values are a second input."""

    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, vertices: Tensor, given: Tensor | None = None) -> Tensor:
        if given is None:
            return self.model.encode(vertices)
        known, start = {}, 0
        for name in self.model.parts.pinned_names:
            place = self.model.parts[name]
            stop = start + place.stop - place.start
            known[name], start = given[:, start:stop], stop
        return self.model.encode(vertices, known)


def export_onnx(model: MorphableModel, path: Path | str, network: Network = "decoder") -> OnnxFile:
    """Write the decoder, `code` (B, L) to `vertices` (B, V, 3) mm, or the encoder, the other way,
    for any B. An encoder that searches a condition has it as a second input, `given`.

    The file is run with ONNX Runtime on several batches first, and kept only if it equals torch.

    Raises InputError if onnx is not installed, the encoder is no network but a search, or the two
    differ by more than TOLERANCE.
    """
    path = Path(path)
    if network == "encoder" and not model.encoder_is_network:
        raise InputError(
            f"{model.name}: encodes by a search, not by a network; only its decoder can be exported"
        )
    runtime = _runtime(path)
    module: nn.Module = _Decoder(model) if network == "decoder" else _Encoder(model)
    batches = {size: _inputs(model, network, size) for size in BATCHES}
    names = list(batches[1])
    output = "vertices" if network == "decoder" else "code"
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(batches[BATCHES[-1]].values()),
            dynamo=True,
            dynamic_shapes=tuple({0: torch.export.Dim("count")} for _ in names),
            input_names=names,
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _describe(proto, model, network)
    data = proto.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    difference = max(_difference(session, module, values) for values in batches.values())
    if difference > TOLERANCE:
        raise InputError(
            f"{path}: not written, ONNX Runtime differs from torch by {difference:.1g} of the "
            f"output's size, more than {TOLERANCE:g}"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    sizes = {name: tuple(value.shape[1:]) for name, value in batches[1].items()}
    made = (model.template.n_vertices, 3) if network == "decoder" else (model.parts.size,)
    return OnnxFile(difference, _words(sizes), _words({output: made}))


def _words(sizes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} (B, {', '.join(map(str, shape))})" for name, shape in sizes.items())


def _inputs(model: MorphableModel, network: Network, count: int) -> dict[str, Tensor]:
    """Inputs of a batch: codes with the spread of the prior, or shapes around the template."""
    generator = torch.Generator().manual_seed(count)
    codes = torch.randn(count, model.parts.size, generator=generator)
    if model.prior is not None:
        free = model.prior.sample(count, generator).cpu()
        codes = torch.where(torch.from_numpy(model.parts.free), free, codes.clamp(0, 1))
    if network == "decoder":
        return {"code": codes}
    with torch.no_grad():
        vertices = model.decode(codes)
    pinned = ~torch.from_numpy(model.parts.free)
    given = {"given": codes[:, pinned]} if model.searched_size else {}
    return {"vertices": vertices, **given}


def _difference(session: Any, module: nn.Module, values: dict[str, Tensor]) -> float:
    with torch.no_grad():
        expected = module(*values.values()).numpy()
    found = session.run(None, {name: value.numpy() for name, value in values.items()})[0]
    return float(np.abs(found - expected).max() / (_size(expected) or 1.0))


def _size(output: np.ndarray) -> float:
    """How large shapes (B, V, 3) are along their longest axis, or codes (B, L) at most."""
    if output.ndim == 3:
        return float(np.ptp(output, axis=1).max())
    return float(np.abs(output).max())


def _describe(proto: Any, model: MorphableModel, network: Network) -> None:
    """Record in the file what it computes."""
    proto.producer_name = "morphable"
    proto.doc_string = f"{network} of a {model.name} model of {model.template.name}, in mm"
    for key, value in {
        "family": model.family,
        "parts": model.parts.described,
        "template": model.template.fingerprint,
        "licence": str(model.provenance.get("licence", "unknown")),
    }.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def _runtime(path: Path) -> Any:
    """The module onnxruntime, if all that is needed is there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{path}: ONNX files need {error.name}; install it with {HINT}") from None
    return onnxruntime


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own notes, which are about its inside."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
