"""Keep freed memory in the process: arrays of the same sizes are made and dropped at every step."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 1 << 25


def keep_freed_memory() -> bool:
    """Stop glibc from handing freed blocks back to the system, which faults them in again page by page.

    For commands that train or measure; it holds for the whole process. False where there is no glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_TRIM_THRESHOLD, 1 << 30))
