"""Raft, made safe: the library with its holes closed, the journal, the snapshots. No network, thread or timer here."""
