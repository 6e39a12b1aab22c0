"""What is imported when it is used, by its place `module:name`. So the help stays quick, and the command line, which
stands below all other packages, knows those that it starts by name alone."""

import importlib
from typing import Any


def loaded(place: str) -> Any:
    """What is at this place."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
