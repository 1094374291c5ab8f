"""LAMM (Tarasiou et al., CVPR 2024): its tables of reconstruction, ablation, manipulation and
complexity on open data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morphable.bench.table import (
    ALONE,
    ERROR,
    MEDIAN,
    PARAMETERS,
    SECONDS,
    Column,
    Data,
    Row,
    Table,
)

LATENTS = (32, 64, 128, 256)
SAME_SIZE = {**ALONE, "filters": "lamm"}
RIVALS: Mapping[str, Mapping[str, Any]] = {
    "CoMA": SAME_SIZE,
    "SpiralNet": SAME_SIZE,
    "SpiralNet++": SAME_SIZE,
}
"""Settings of the rows whose networks are larger in LAMM's paper than in their own. The paper gives
no size for SpiralNet, which has the filters of the other two here.
"""
FAMILIES = {
    "PCA": "pca",
    "region-PCA": "region-pca",
    "CoMA": "coma",
    "SpiralNet": "spiralnet",
    "SpiralNet++": "spiralnet++",
    "LAMM, transformer": "lamm",
    "LAMM, mixer": "lamm-mixer",
}
Published = dict[str, tuple[float, ...]]
"""By row, mean vertex errors in hundredths of a mm, for as many of the last LATENTS."""
NEUTRAL: Published = {
    "PCA": (54.32, 31.78, 16.39, 10.42),
    "region-PCA": (191.48, 99.12, 49.10, 23.36),
    "CoMA": (56.5, 35.30, 16.23, 13.11),
    "SpiralNet": (52.57, 29.55, 15.69, 11.82),
    "SpiralNet++": (52.00, 29.62, 15.60, 11.53),
    "LAMM, transformer": (42.88, 19.55, 10.71, 9.08),
    "LAMM, mixer": (46.59, 23.46, 10.88, 7.97),
}
EXPRESSIONS: Published = {
    "PCA": (24.12, 11.49),
    "region-PCA": (50.91, 25.31),
    "CoMA": (26.80, 14.20),
    "SpiralNet": (18.92, 14.77),
    "SpiralNet++": (16.74, 14.28),
    "LAMM, transformer": (10.65, 9.09),
    "LAMM, mixer": (12.32, 9.51),
}
FINE: Published = {
    "PCA": (20.84, 11.73),
    "region-PCA": (50.34, 25.92),
    "CoMA": (20.70, 15.40),
    "SpiralNet": (22.34, 13.88),
    "SpiralNet++": (21.60, 13.55),
    "LAMM, transformer": (21.72, 13.70),
    "LAMM, mixer": (19.93, 11.48),
}
HANDS: Published = {
    "PCA": (87.27, 60.89, 40.97, 25.90),
    "region-PCA": (189.11, 108.11, 68.16, 42.61),
    "CoMA": (89.50, 60.07, 41.60, 26.20),
    "SpiralNet": (85.66, 58.20, 40.32, 26.75),
    "SpiralNet++": (84.45, 57.75, 39.83, 26.72),
    "LAMM, transformer": (84.34, 57.22, 40.50, 26.31),
    "LAMM, mixer": (82.63, 56.89, 39.20, 24.60),
}
Costs = Mapping[str, tuple[float, float, float]]
"""By row, the decoder's parameters, and its ms per mesh on the paper's CPU and GPU."""
COSTS: Costs = {
    "CoMA": (3.88e6, 500, 15),
    "SpiralNet++": (4.27e6, 75, 3),
    "LAMM, transformer": (28.95e6, 15, 6),
    "LAMM, mixer": (20.3e6, 15, 6),
}
FINE_COSTS: Costs = {
    "CoMA": (19.38e6, 3800, 89),
    "SpiralNet++": (19.67e6, 580, 16),
    "LAMM, transformer": (120.2e6, 47, 11),
    "LAMM, mixer": (111.5e6, 45, 11),
}
NOTE = (
    "The paper's errors are of scanned heads and hands that are not public, after 1,500 epochs; "
    "ours are of the sets named here: compare the order of the rows, not the millimeters. CoMA and "
    "the SpiralNets have as many filters as the paper's counts of parameters imply."
)
BOTH = {"stages": ("autoencode", "manipulate")}


def _population(quick: bool, **options: Any) -> Data:
    """Heads of many people. The test subset has held-out people."""
    fine = options.get("size") == "70k"
    count = (300 if fine else 2_000) if quick else 6_000
    name = "-".join(
        ["faces", *(str(v) if v is not True else k for k, v in options.items())]
    ).replace("_", "-")
    size = {"size": "5k"} if quick and not fine else {}
    return Data(
        name,
        "face-population",
        {"count": count, "seed": 1, **size, **options},
        "subject",
        8 if quick else 60,
    )


def _hands(quick: bool) -> Data:
    return Data(
        "hands",
        "hands",
        {"count": 4_000 if quick else 10_000, "seed": 3},
        "subject",
        8 if quick else 60,
    )


def _reconstruction(
    name: str, title: str, data: Data, published: Published, quick: bool, source: str
) -> Table:
    sizes = LATENTS[-len(published["PCA"]) :]
    rows = []
    for place, size in enumerate(sizes):
        if quick and size != 64 and len(sizes) == len(LATENTS):
            continue
        for row, family in FAMILIES.items():
            paper = {ERROR.title: published[row][place] / 100}
            rows.append(
                Row(
                    row,
                    family,
                    RIVALS.get(row, {}),
                    latent=size,
                    paper=paper,
                    against=None if row == "PCA" else "PCA",
                )
            )
    return Table(name, title, [data], rows, (ERROR, MEDIAN, PARAMETERS, SECONDS), NOTE, source)


def reconstruction(quick: bool) -> Table:
    """Neutral heads (the paper's UHM12k)."""
    data = _population(quick, neutral_only=True)
    title = "Reconstruction of neutral heads"
    return _reconstruction("lamm-reconstruction", title, data, NEUTRAL, quick, "LAMM, UHM12k")


def expressions(quick: bool) -> Table:
    """Heads with expressions (UHM12k with expressions)."""
    data = _population(quick)
    title = "Reconstruction of heads with expressions"
    return _reconstruction(
        "lamm-expressions", title, data, EXPRESSIONS, quick, "LAMM, UHM12k with expressions"
    )


def fine(quick: bool) -> Table:
    """Heads of 70 thousand vertices (UHM). Ours have expressions: neutral ones are sums of a hundred
    shapes, so PCA of the paper's sizes has no error on them.
    """
    data = _population(quick, size="70k")
    title = "Reconstruction of heads at 70k vertices"
    return _reconstruction("lamm-70k", title, data, FINE, quick, "LAMM, UHM at 72k vertices")


def hands(quick: bool) -> Table:
    """Posed hands (Handy)."""
    return _reconstruction(
        "lamm-hands", "Reconstruction of hands", _hands(quick), HANDS, quick, "LAMM, Handy"
    )


def ablation(quick: bool) -> Table:
    """Changes of width, multiplier, depth, number of regions, loss and learning rate from the
    transformer as published.
    """
    whole: dict[str, Any] = {
        "width": 512,
        "heads": 8,
        "encoder_depth": 5,
        "decoder_depth": 3,
        "expansion": 4.0,
        "normalization": "vertex",
        "start": "random",
        "regions": 11,
        "merged_from": (29, 17, 13),
    }
    changes: list[tuple[str, dict[str, Any], dict[str, Any], float]] = [
        ("as published", {}, {}, 9.08),
        ("width 256", {"width": 256}, {}, 14.53),
        ("width 1024", {"width": 1024}, {}, 9.04),
        ("multiplier 0.5", {"expansion": 0.5}, {}, 14.02),
        ("multiplier 1", {"expansion": 1.0}, {}, 11.97),
        ("multiplier 2", {"expansion": 2.0}, {}, 10.45),
        ("depth 3 + 3", {"encoder_depth": 3, "decoder_depth": 3}, {}, 10.50),
        ("depth 4 + 4", {"encoder_depth": 4, "decoder_depth": 4}, {}, 9.10),
        ("depth 3 + 5", {"encoder_depth": 3, "decoder_depth": 5}, {}, 9.34),
        ("depth 5 + 5", {"encoder_depth": 5, "decoder_depth": 5}, {}, 8.48),
        ("29 regions", {"regions": 29, "merged_from": ()}, {}, 8.96),
        ("17 regions", {"regions": 17, "merged_from": (29,)}, {}, 9.05),
        ("13 regions", {"regions": 13, "merged_from": (29, 17)}, {}, 9.07),
        ("loss of the output alone", {"layers": "output"}, {}, 12.14),
        ("loss of encoder and output", {"layers": "encoder"}, {}, 10.52),
        ("loss of the decoder", {"layers": "decoder"}, {}, 10.13),
        ("output alone, tenfold rate", {"layers": "output"}, {"learning_rate": 1e-3}, 49.39),
    ]
    rows = [
        Row(
            name,
            "lamm",
            whole | model,
            {"learning_rate": 1e-4, **train},
            256,
            {ERROR.title: number / 100},
            against=None if name == "as published" else "as published",
        )
        for name, model, train, number in changes
    ]
    columns = (ERROR, MEDIAN, PARAMETERS, SECONDS)
    data = _population(quick, neutral_only=True)
    return Table(
        "lamm-ablation",
        "What LAMM is made of",
        [data],
        rows,
        columns,
        NOTE,
        "LAMM, ablation on UHM12k",
    )


def manipulation(quick: bool) -> Table:
    """Errors at the control vertices and at all others if one person's handles are moved to where
    another's are.
    """
    controls, others = (
        Column("control, mm", "control_error_mm"),
        Column("other, mm", "other_error_mm"),
    )
    columns = (
        controls,
        others,
        Column("moved, control", "control_moved_mm"),
        Column("moved, other", "other_moved_mm"),
        Column("locality", "locality"),
        ERROR,
    )
    published = {True: (18.47, 26.03), False: (16.55, 23.38)}
    rows = [
        Row(
            "LAMM, transformer" if bottleneck else "LAMM, transformer, no bottleneck",
            "lamm",
            # Without a code of the whole shape, only the regions can start at their components.
            {} if bottleneck else {"bottleneck": False, "start": "pca"},
            BOTH,
            64,
            {controls.title: numbers[0] / 100, others.title: numbers[1] / 100},
        )
        for bottleneck, numbers in published.items()
    ] + [
        Row("LAMM, mixer", "lamm-mixer", {}, BOTH, 64, {controls.title: None, others.title: None}),
        Row(
            "region-PCA",
            "region-pca",
            latent=64,
            paper={controls.title: None, others.title: None},
        ),
    ]
    note = (
        NOTE + " PCA and pca-mlp have no handles; the columns of movement say how far the vertices "
        "should move."
    )
    return Table(
        "lamm-manipulation",
        "Editing by control vertices",
        [_population(quick, neutral_only=True), _hands(quick)],
        rows,
        columns,
        note,
        "LAMM, supplement 2.3",
    )


def complexity(quick: bool) -> Table:
    """What decoding costs at 12 thousand vertices."""
    return _complexity("lamm-complexity", 11_916, COSTS)


def fine_complexity(quick: bool) -> Table:
    """What decoding costs at 72 thousand vertices."""
    return _complexity("lamm-complexity-70k", 71_926, FINE_COSTS)


def _complexity(name: str, vertices: int, published: Costs) -> Table:
    """Parameters of the decoder and its time per mesh. Nothing is trained, so both sizes are
    quick.
    """
    columns = (
        Column("decoder parameters", "decoder_parameters"),
        Column("CPU, ms", "decode_ms"),
        Column("GPU, ms", "decode_gpu_ms"),
    )
    rows = [
        Row(
            row,
            FAMILIES[row],
            RIVALS.get(row, {}),
            latent=256,
            recipe="paper",
            paper={column.title: number for column, number in zip(columns, numbers, strict=True)},
        )
        for row, numbers in published.items()
    ]
    rows += [
        Row(f"{row.name}, fast recipe", row.family, latent=256)
        for row in rows
        if "LAMM" in row.name
    ]
    note = (
        "Untrained models on a closed surface with as many vertices as the paper's heads, since "
        "the cost does not depend on the shape. Medians of 20 decodes; the GPU is measured if the "
        "bench runs on one. Only trainable parameters count, so PCA's components do not."
    )
    return Table(
        name,
        "What decoding costs",
        [Data("sphere", "sphere", {"vertices": vertices})],
        rows,
        columns,
        note,
        "LAMM, table of complexity",
        trained=False,
    )
