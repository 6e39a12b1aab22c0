"""Raft, made safe: the engine with its holes closed, the journal, the snapshots. No network, thread or timer here."""
