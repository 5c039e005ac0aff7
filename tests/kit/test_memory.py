import subprocess
import sys

import pytest

from kit.memory import keep_freed_memory

SCRIPT = """
import resource, sys
import numpy as np
from kit.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    return [np.ones(1 << 18) for _ in range(16)]
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    run = subprocess.run([sys.executable, "-c", SCRIPT, word], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="memory is kept where there is glibc")
def test_memory_once_freed_is_not_faulted_in_again():
    pages = 20 * 16 * (2 << 20) // 4096
    assert faults("give back") > pages / 4
    assert faults("keep") < pages / 100
