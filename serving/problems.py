"""The one table from what goes wrong with a prediction to its HTTP status."""

import logging

from aiohttp import web

from parvada.bearer import Unauthenticated
from parvada.refusals import problem
from serving import errors

log = logging.getLogger(__name__)

_TABLE: dict[type[Exception], tuple[int, str]] = {
    errors.BadInput: (400, "invalid_input"),
    errors.UnusableInput: (422, "unusable_input"),
    errors.UnsupportedFormat: (415, "unsupported_format"),
    errors.TooLarge: (413, "too_large"),
    errors.UnknownModel: (404, "unknown_model"),
    Unauthenticated: (401, "unauthenticated"),
    errors.Forbidden: (403, "forbidden"),
    errors.Overloaded: (429, "overloaded"),
    errors.NotReady: (503, "not_ready"),
    errors.LoadFailed: (503, "model_not_loadable"),
    errors.PredictionFailed: (500, "prediction_failed"),
}


def from_exception(error: Exception) -> web.Response:
    """By the table; what is not in it is our fault, is logged with its trace, and shows none of it."""
    if type(error) not in _TABLE:
        log.error("request.crashed", exc_info=error)
        return problem(500, "internal_error", "This node failed to handle the request; its log says why.")
    status, code = _TABLE[type(error)]
    if status >= 500:
        log.warning("request.failed code=%s error=%s", code, error)
    return problem(status, code, str(error), error.details if isinstance(error, errors.ServingError) else None)
