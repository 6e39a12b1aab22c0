"""Chaos on real processes: clients on every node, nemeses, a recorded history, and what it must satisfy."""
