"""The client API on every node: one module a resource, one table of errors."""
