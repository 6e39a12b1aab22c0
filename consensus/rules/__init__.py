"""The rules of the replicated state: what an entry of the log changes. Pure: no clock, no randomness, no I/O."""
