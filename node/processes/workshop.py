"""The agent's own `training.pool.Pool`, for what is too heavy for it: parsing uploads, resolving jobs, exports."""

from training.pool import PoolSettings

WORKSHOP = PoolSettings(
    name="workshop",
    workers=2,  # so that a long upload does not hold up the submission of a job
    waiting=64,
    seconds=600.0,
    environment={
        # Arrow's own choice keeps what was freed for later: 50 MB more while a large file is read.
        "ARROW_DEFAULT_MEMORY_POOL": "jemalloc",
        # For the platforms where that one is not built in.
        "MIMALLOC_PURGE_DELAY": "0",
    },
)
