"""How a node becomes part of a cluster: its slot on disk, where it looks for peers, whether it forms or joins."""
