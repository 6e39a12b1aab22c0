"""The terminal UI: a window on the cluster that moves from node to node by itself."""
