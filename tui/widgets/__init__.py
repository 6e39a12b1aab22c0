"""Widgets: each renders the snapshot that it is given and knows nothing of the network."""
