"""Keep glibc from returning large blocks of memory to the system after every operation, which
makes training on a CPU slow.

By default, glibc maps memory for each large tensor and unmaps it when the tensor is freed, so every
operation waits for new pages to be filled with zeros. In our measurements this makes a training
step about 1.7 times as long. The price of keeping the blocks is that the memory of the process
stays at its peak. A program should decide that, not a library, so the command line calls this
function and importing the package does not.
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
