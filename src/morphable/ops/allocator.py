"""Keep glibc from returning large blocks of memory to the system after every operation, which
makes training on a CPU slow.

By default, glibc maps a block above some size anew for each tensor and unmaps it when the tensor
dies, so that every operation waits for fresh pages filled with zeros. This was measured to make a
training step about 1.7 times as long. The price of keeping the blocks: the memory of the process
stays at its peak. That is a decision for a program, so the command line calls this function and no
import does.
"""

from __future__ import annotations

import ctypes
import platform
import sys

_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD of malloc.h; the value -1 never trims
_MMAP_MAX = -4  # M_MMAP_MAX; the value 0 maps nothing outside the heap


def keep_freed_memory() -> bool:
    """Let malloc reuse large freed blocks for the rest of this process. Returns whether it does.

    It works on Linux with glibc only; elsewhere it does nothing and returns False. Call it before
    the first large tensor is made.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
