"""Workers: the processes of a `torchrun`, or just this one."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from morphable.errors import InputError


@dataclass(frozen=True)
class Workers:
    """This process's `rank` among `count`, and the device it works on."""

    rank: int
    count: int
    device: torch.device

    def mean(self, values: Sequence[float]) -> list[float]:
        """Each number averaged over the processes: all see the same, so all decide alike."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.count).tolist()

    def gather(self, value: Tensor) -> list[Tensor]:
        """A CPU tensor of every process, by rank."""
        if self.count == 1:
            return [value]
        collected = [torch.empty_like(value, device=self.device) for _ in range(self.count)]
        dist.all_gather(collected, value.to(self.device))
        return [item.cpu() for item in collected]

    def barrier(self) -> None:
        if self.count > 1:
            dist.barrier()


@contextlib.contextmanager
def workers(device: str) -> Iterator[Workers]:
    """The process group that torchrun announced in the environment, or a single worker."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"`device` {device}: expected cpu or cuda", "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "`device` cuda: this machine has no usable NVIDIA GPU, "
            "or torch was installed without CUDA",
            "device",
        )
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Workers(0, 1, torch.device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(device, local) if device == "cuda" else torch.device("cpu")
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), count, place)
    finally:
        # A learner and its DistributedDataParallel refer to each other, so only the collector frees
        # them. If that happens as the interpreter exits, the group is gone and the process aborts.
        gc.collect()
        dist.destroy_process_group()
