"""Keep glibc from returning large blocks to the system after every operation, which CPU training
pays for dearly.

By default a block over a threshold is mapped for each tensor and unmapped when it dies, so every
operation faults in fresh zeroed pages; measured, that costs a training step a factor of about 1.7.
The price of keeping them: the process's memory stays at its peak. It is a decision for a program,
so the command line calls this and no import does.
"""

from __future__ import annotations

import ctypes
import platform
import sys

_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD of malloc.h; the value -1 never trims
_MMAP_MAX = -4  # M_MMAP_MAX; the value 0 maps nothing outside the heap


def keep_freed_memory() -> bool:
    """Let malloc reuse large freed blocks for the rest of this process; True if it was done.

    Linux with glibc only, elsewhere it does nothing and returns False. Call it before the first
    large tensor.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
