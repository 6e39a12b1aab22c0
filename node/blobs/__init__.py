"""Bytes named by their digest: kept durably, placed on the right nodes, repaired, checked, moved between nodes."""
