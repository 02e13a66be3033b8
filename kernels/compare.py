"""The one comparison of a computed mel with the reference: dtype and shape first, then values, scaled by the reference.

Linear:  peak-relative error  max |actual - expected| / max |expected|
         RMS error            sqrt(sum (actual - expected)^2 / sum expected^2)        (relative L2)
Log:     max |log(actual) - log(expected)|, natural. It sees errors in quiet bins, which the linear figures hide.
Any NaN or infinity on either side fails, and so does an empty comparison unless it is asked for.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare`. `passed` only if `reason` is empty; the errors are NaN where they could not be computed.

    Attributes:
        worst_index: of the element of the largest absolute difference (of the logs, where those are compared) or the
            first non-finite one; None where there is no element to show. worst_actual, worst_expected: its values.
    """

    passed: bool
    reason: str
    worst_index: tuple[int, ...] | None = None
    worst_actual: float | None = None
    worst_expected: float | None = None
    max_abs: float = float("nan")
    peak_relative: float = float("nan")
    rms_relative: float = float("nan")
    max_log_abs: float = float("nan")

    def __str__(self) -> str:
        errors = f"peak-relative {self.peak_relative:.3g}, RMS {self.rms_relative:.3g}, absolute {self.max_abs:.3g}"
        if not np.isnan(self.max_log_abs):
            errors += f", log {self.max_log_abs:.3g}"
        worst = ""
        if self.worst_index is not None:
            worst = f"; worst at {self.worst_index}: actual {self.worst_actual!r}, expected {self.worst_expected!r}"
        return f"{'passed' if self.passed else 'FAILED: ' + self.reason}; {errors}{worst}"


def compare(
    actual: np.ndarray,
    expected: np.ndarray,
    *,
    rtol_peak: float | None = None,
    rtol_rms: float | None = None,
    atol_log: float | None = None,
    log_eps: float | None = None,
    dtype: str | np.dtype | None = None,
    allow_empty: bool = False,
) -> Comparison:
    """Compare `actual` with the reference `expected` (any shape; what np.asarray takes). Wrong values never raise.

    Args:
        rtol_peak: largest allowed peak-relative error.
        rtol_rms: largest allowed relative RMS error.
        atol_log: largest allowed difference of natural logs. With log_eps, log(x + log_eps) of both arrays is compared;
            without it both are logs already, and rtol_peak and rtol_rms, which mean nothing then, are refused.
        dtype: what actual's dtype must be; default expected's.
        allow_empty: let two arrays without elements pass.

    Raises:
        ValueError: no tolerance, or one that is negative or NaN.
    """
    tolerances = {"rtol_peak": rtol_peak, "rtol_rms": rtol_rms, "atol_log": atol_log}
    limits = {name: value for name, value in tolerances.items() if value is not None}
    if not limits:
        raise ValueError(f"give at least one tolerance of {', '.join(tolerances)}: without one nothing is compared")
    for name, limit in limits.items():
        if not 0.0 <= limit < np.inf:
            raise ValueError(f"{name}={limit} must be finite and at least 0")
    if log_eps is not None and atol_log is None:
        raise ValueError(f"log_eps={log_eps} needs atol_log; give it or leave log_eps out")
    already_logs = atol_log is not None and log_eps is None
    if already_logs and len(limits) > 1:
        raise ValueError("rtol_peak and rtol_rms need linear values; give log_eps too, or atol_log alone for logs")

    actual, expected = np.asarray(actual), np.asarray(expected)
    dtype = expected.dtype if dtype is None else np.dtype(dtype)
    if actual.dtype != dtype:
        return Comparison(False, f"dtype {actual.dtype}, expected {dtype}")
    if actual.shape != expected.shape:
        return Comparison(False, f"shape {actual.shape}, expected {expected.shape}")
    if expected.size == 0:
        return Comparison(allow_empty, "" if allow_empty else f"nothing to compare: shape {expected.shape}")

    a, e = actual.astype(np.float64), expected.astype(np.float64)
    for name, values in (("actual", a), ("expected", e)):
        infinite = ~np.isfinite(values)
        if infinite.any():
            return _at(np.argmax(infinite), a, e, False, f"{name} has {infinite.sum()} NaN or infinite values")

    difference = np.abs(a - e)
    errors = {"max_abs": float(difference.max())}
    if already_logs:
        errors["max_log_abs"] = errors["max_abs"]
    else:
        errors["peak_relative"] = _ratio(errors["max_abs"], float(np.abs(e).max()))
        errors["rms_relative"] = _ratio(float(np.linalg.norm(difference)), float(np.linalg.norm(e)))
    if log_eps is not None:
        for name, values in (("actual", a), ("expected", e)):
            if values.min() + log_eps <= 0.0:
                reason = f"{name} + log_eps={log_eps} must be above 0 for its logarithm"
                return _at(np.argmin(values), a, e, False, reason)
        difference = np.abs(np.log(a + log_eps) - np.log(e + log_eps))
        errors["max_log_abs"] = float(difference.max())

    error_of = {"rtol_peak": "peak_relative", "rtol_rms": "rms_relative", "atol_log": "max_log_abs"}
    broken = [
        f"{error_of[name]} {errors[error_of[name]]:.3g} above {name}={limit:g}"
        for name, limit in limits.items()
        if not errors[error_of[name]] <= limit
    ]
    return _at(np.argmax(difference), a, e, not broken, "; ".join(broken), **errors)


def assert_close(actual: np.ndarray, expected: np.ndarray, *, context: str = "", **tolerances) -> Comparison:
    """`compare`, raising AssertionError with the whole finding unless it passes; `context` opens the message."""
    result = compare(actual, expected, **tolerances)
    if not result.passed:
        raise AssertionError(f"{context}: {result}" if context else str(result))
    return result


def _ratio(error: float, scale: float) -> float:
    if error == 0.0:
        return 0.0
    return error / scale if scale > 0.0 else float("inf")  # a silent reference forgives nothing


def _at(flat: np.intp, actual: np.ndarray, expected: np.ndarray, passed: bool, reason: str, **errors) -> Comparison:
    """The comparison whose worst element has this flat index."""
    index = tuple(int(i) for i in np.unravel_index(flat, actual.shape))
    return Comparison(passed, reason, index, float(actual[index]), float(expected[index]), **errors)
