"""What the agent gives to its own children through its Unix socket."""
