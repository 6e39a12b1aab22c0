"""Whole clusters in virtual time: the real Raft core, journal and machine between simulated disks, links and clocks.

`python -m tests.simulation --seeds 100 --first 1` runs seeds, `--transcript 7` tells what happened in one.
"""
