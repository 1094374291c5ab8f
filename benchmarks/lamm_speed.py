"""LAMM's speed: decoding one mesh against reading its weights once, a training step against looping
over regions.

    python benchmarks/lamm_speed.py [--vertices 11916 71926] [--rounds 9] [--skip-training]

The floor of decoding is the time that one pass over the decoder's weights takes on this machine,
measured in turns with it. The loop is the published formulation: every layer's tokens through one
`Linear` for each region, scattered by `+=`.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
from torch import Tensor, nn

from _common import Machine, in_turns, median_ratio, sphere_template
from morphable.models.families import create
from morphable.models.lamm import AUTOENCODE, Lamm
from morphable.models.lamm_factor import factor
from morphable.models.recipes import LAMM, LAMM_FAST, LAMM_MIXER
from morphable.models.training import Batch, Progress
from morphable.ops.allocator import keep_freed_memory
from morphable.train.optimizer import make_optimizer


class Looped(nn.Module):
    """The same network written as published: a Linear for each region, and loops over regions and
    layers.
    """

    def __init__(self, model: Lamm) -> None:
        super().__init__()
        self.model = [model]
        labels = torch.from_numpy(model.regions.labels)
        self.members = [
            (labels == region).nonzero().ravel() for region in range(len(model.regions.names))
        ]
        width = model.config.width
        self.into = nn.ModuleList(nn.Linear(3 * len(m), width) for m in self.members)
        self.back = nn.ModuleList(nn.Linear(width, 3 * len(m)) for m in self.members)

    def forward(self, vertices: Tensor) -> Tensor:
        model = self.model[0]
        x = model.normalization(vertices)
        tokens = torch.stack(
            [f(x[:, m].flatten(1)) for f, m in zip(self.into, self.members, strict=True)], 1
        )
        network = model.network
        tokens = torch.cat(
            [network.id_token.expand(len(x), 1, -1), tokens + network.region_embedding], 1
        )
        states = network.encoder(tokens)
        states = states + network.decoder_states(
            network.code_of(states[-1]), x.new_zeros(len(x), 3 * len(model.controls))
        )
        outputs = []
        for state in states:
            y = torch.zeros_like(x)
            for region, (f, m) in enumerate(zip(self.back, self.members, strict=True)):
                y[:, m] += f(state[:, 1 + region]).unflatten(1, (-1, 3))
            outputs.append(y)
        shares = [aim.share for aim in model.aims]
        return torch.stack(
            [(y - s * x).abs().mean() for y, s in zip(outputs, shares, strict=True)]
        ).mean()


def decoder_weights(model: Lamm) -> list[Tensor]:
    network = model.network
    modules = (network.from_code, network.decoder, network.inverse_tokenizer)
    return [parameter.detach() for module in modules for parameter in module.parameters()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vertices", type=int, nargs="+", default=[11_916, 71_926])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--skip-training", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads; medians of {options.rounds} rounds, in turns")
    machine = Machine.measure()
    for count in options.vertices:
        template = sphere_template(count)
        for name, family, config in (
            ("transformer", "lamm", LAMM.model),
            ("mixer", "lamm-mixer", LAMM_MIXER.model),
            ("fast recipe", "lamm", replace(LAMM.model, **LAMM_FAST)),
        ):
            model = create(family, template, config)
            assert isinstance(model, Lamm)
            _decoding(f"{count} vertices, {name}", model.eval(), machine, options.rounds)
    if not options.skip_training:
        _training_step(options.vertices[0], max(3, options.rounds // 3))


@torch.no_grad()
def _decoding(name: str, model: Lamm, machine: Machine, rounds: int) -> None:
    weights = decoder_weights(model)
    code = torch.zeros(1, model.parts.size)
    shape = torch.tensor(model.template.mesh.vertices).float()
    thin = factor(model, model.config.width // 8, shape + torch.randn(64, 1, 3))
    actions = [
        lambda: model.decode(code), lambda: [w.sum() for w in weights], lambda: model.decode_region(code, 3),
        lambda: thin.decode(code),
    ]  # fmt: skip
    times = in_turns(actions, rounds)
    whole, floor, region, low = (statistics.median(t) for t in times)
    tokens = len(model.regions.names) + 1
    backbone = sum(p.numel() for p in model.network.decoder.parameters())
    flops = 2 * (tokens * backbone + sum(w.numel() for w in weights) - backbone)
    megabytes = sum(w.numel() for w in weights) * 4 / 1e6
    print(
        f"{name}: decode of one mesh {whole:.1f} ms, reading its {megabytes:.0f} MB once {floor:.1f} ms"
    )
    arithmetic = flops / machine.gflops / 1e6
    print(
        f"  ratio {median_ratio(times[0], times[1]):.2f} (target below 2); its arithmetic alone {arithmetic:.1f} ms"
    )
    print(
        f"  one region alone {region:.1f} ms; inverse tokenizer of an eighth of the rank {low:.1f} ms",
        flush=True,
    )


def _training_step(count: int, rounds: int) -> None:
    model = create("lamm", sphere_template(count), LAMM.model)
    assert isinstance(model, Lamm)
    looped = Looped(model)
    batch = torch.randn(16, count, 3)
    progress = Progress(0, 1, 0, 1, torch.Generator().manual_seed(0), AUTOENCODE)
    shared = [
        p
        for n, p in model.named_parameters()
        if not n.startswith(("network.tokenizer", "network.inverse_tokenizer"))
    ]
    ours = make_optimizer(model.parameters(), LAMM.train)
    theirs = torch.optim.AdamW([*shared, *looped.parameters()], 1e-4)
    same = make_optimizer([*shared, *looped.parameters()], LAMM.train)

    def step(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    times = in_turns(
        [
            lambda: step(looped(batch), theirs),
            lambda: step(looped(batch), same),
            lambda: step(
                torch.stack(list(model.loss(Batch(batch), progress).values())).sum(), ours
            ),
        ],
        rounds,
    )
    loop, fused, own = (statistics.median(t) for t in times)
    print(f"training step, {count} vertices, batch 16: loop {loop:.0f} ms, ours {own:.0f} ms")
    print(f"  ratio {median_ratio(times[0], times[2]):.2f} (target 1.8)")
    print(f"  loop with our optimizer {fused:.0f} ms, ratio {median_ratio(times[1], times[2]):.2f}")


if __name__ == "__main__":
    main()
