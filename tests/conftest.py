"""Settings that every test shares: one thread per process, no network services, no leftovers."""

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}

from hypothesis import settings

settings.register_profile("podracer", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("podracer")
