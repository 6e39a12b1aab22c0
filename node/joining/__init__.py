"""How a node comes into a cluster: its slot on disk, whether it forms or joins; and how it leaves one that ended."""
