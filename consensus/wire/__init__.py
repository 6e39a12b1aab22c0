"""Between two nodes' logs: frames, and the connections by mutual TLS that carry them."""
