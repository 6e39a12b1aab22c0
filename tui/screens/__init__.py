"""Screens: each owns the state of what it shows, changed by its message handlers alone."""
