"""The harness: real clusters as local processes or containers, driven by verbs that wait for what they name."""
