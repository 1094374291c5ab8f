"""Workers: the processes of a `torchrun`, or this process alone."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from morphable.errors import InputError


@dataclass(frozen=True)
class Workers:
    """The `rank` of this process among `count` processes, and the device that it uses."""

    rank: int
    count: int
    device: torch.device

    def mean(self, values: Sequence[float]) -> list[float]:
        """Average each number over the processes. All processes get the same result, so decisions
        based on it agree.
        """
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.count).tolist()

    def gather(self, value: Tensor) -> list[Tensor]:
        """Collect a CPU tensor from every process, in the order of ranks."""
        if self.count == 1:
            return [value]
        collected = [torch.empty_like(value, device=self.device) for _ in range(self.count)]
        dist.all_gather(collected, value.to(self.device))
        return [item.cpu() for item in collected]

    def barrier(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            dist.barrier()


@contextlib.contextmanager
def workers(device: str) -> Iterator[Workers]:
    """Join the process group that torchrun announces in the environment; without torchrun, give a
    single worker.

    Raises InputError if `device` is neither cpu nor cuda, or if there is no usable GPU.
    """
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
    # `torch.distributed.nn.functional` keeps the process group that exists when it is first
    # imported, as a default argument of its functions. Imported here, it keeps none.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), count, place)
    finally:
        # The threads of a process group end with its last reference. If they still run when the
        # interpreter exits, the process sometimes aborts. A learner and its DistributedDataParallel
        # refer to each other, so only the garbage collector frees the group that they hold.
        gc.collect()
        dist.destroy_process_group()
