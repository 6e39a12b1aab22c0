"""What these tests share with the unit tests: time that they move."""

from tests.unit.conftest import clock  # noqa: F401  pytest finds fixtures by their names here
