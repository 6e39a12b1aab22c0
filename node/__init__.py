"""The agent: composition root, HTTP edge, keys, blobs, processes."""
