"""What can go wrong with a prediction. `serving.problems` maps these to HTTP; nothing here knows of HTTP."""

from typing import Any


class ServingError(Exception):
    """Root of this package's errors. `details` names the values at fault for programs."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class BadInput(ServingError):
    """The request cannot be understood, or does not fit the model's signature."""


class UnusableInput(ServingError):
    """The request fits the signature, but the estimator refuses its values."""


class UnsupportedFormat(ServingError):
    """The body's content type or encoding is not one that can be read."""


class TooLarge(ServingError):
    """More bytes or values than one prediction may have."""


class UnknownModel(ServingError):
    """No model or version of that name, or the model has no version at all."""


class Forbidden(ServingError):
    """The token's role does not cover the call."""


class Overloaded(ServingError):
    """As many predictions wait as may wait."""


class NotReady(ServingError):
    """The view, or the model's file, has not come yet; the same request may work soon."""


class LoadFailed(ServingError):
    """The model's file is here and cannot be loaded: wrong digest, unknown types, or not a model file."""


class PredictionFailed(ServingError):
    """The estimator raised something that no input should make it raise."""
