"""Format numbers for readers: three significant digits, a unit, and a dash if a value is not
known.
"""

from __future__ import annotations

import math
from typing import Any

DASH = "–"


def number(value: Any, digits: int = 3) -> str:
    """Format a number with `digits` significant digits and grouped thousands. A dash if not finite.

    >>> number(0.012345), number(1.2), number(12345.6), number(float("nan"))
    ('0.0123', '1.20', '12,346', '–')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return DASH
    if value < 0:
        return "−" + number(-value, digits)
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if decimals > 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{decimals}f}"


def millimeters(value: Any) -> str:
    text = number(value)
    return text if text == DASH else f"{text} mm"


def interval(bounds: Any) -> str:
    """Format bounds as `[low, high]`; "" if they are not known."""
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        return ""
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def signed(value: float) -> str:
    """Format a number with its sign.

    >>> signed(0.5), signed(-1.25), signed(0.0)
    ('+0.500', '−1.25', '0')
    """
    return ("+" if value > 0 else "") + number(value)


def percent(share: float) -> str:
    """Format a share as per cent.

    >>> percent(0.123), percent(0.0123), percent(0.9991)
    ('12 %', '1.2 %', '99.9 %')
    """
    value = 100 * share
    if not math.isfinite(value):
        return DASH
    return f"{value:.1f} %" if abs(value) < 10 or 99 < abs(value) < 100 else f"{value:.0f} %"


def round_up(value: float) -> float:
    """Round up to the next 1, 1.5, 2, 3, 5 or 7.5 times a power of ten, for the end of a scale.

    >>> round_up(0.23), round_up(7.6)
    (0.3, 10.0)
    """
    if not (math.isfinite(value) and value > 0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    step = next(s for s in (1, 1.5, 2, 3, 5, 7.5, 10) if value <= s * power * (1 + 1e-9))
    return float(f"{step * power:.3g}")
