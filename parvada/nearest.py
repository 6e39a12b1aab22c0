"""What somebody may have meant who gave a name that there is not."""

import difflib
from collections.abc import Collection, Iterable

LIKENESS = 0.5
"""From 0 to 1, by `difflib`: below it two names are not alike."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, capitals or not; None where none is like it."""
    lowered = {each.lower(): each for each in reversed(list(known))}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=LIKENESS)
    return lowered[match[0]] if match else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` or nothing: the end of a sentence about an unknown name."""
    found = nearest(name, known)
    return f" (did you mean {found!r}?)" if found is not None else ""


def known_are(name: str, known: Collection[str]) -> str:
    """As `did_you_mean`, and after it all names that are known."""
    return f"{did_you_mean(name, known)}; known are {', '.join(known)}"
