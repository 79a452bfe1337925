"""Numbers as people read them."""

import math

MISSING = "\N{EN DASH}"


def count(n: float) -> str:
    """A count with three digits and a unit: 1234567 -> 1.23M."""
    if not math.isfinite(n):
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= 0.9995 * size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.3g}"


def plain(x: float, digits: int = 4) -> str:
    """A number with so many significant digits and no unit: 0.0012, 3e-05."""
    return f"{x:.{digits}g}" if math.isfinite(x) else MISSING


def bits(x: float) -> str:
    """Bits per byte, with the three decimals that mean something."""
    return f"{x:.3f}" if math.isfinite(x) else MISSING


def share(x: float) -> str:
    """A share as a percentage: 0.314 -> 31 %."""
    return f"{100 * x:.{0 if x >= 0.1 else 1}f} %" if math.isfinite(x) else MISSING


def duration(seconds: float) -> str:
    """A time in its two largest units: 3725 -> 1 h 2 min."""
    if not math.isfinite(seconds):
        return MISSING
    whole = round(seconds)
    for unit, size, below, below_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // below_size
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds:.2g} s" if whole < 10 else f"{whole} s"


def against(ours: float, theirs: float) -> str:
    """How far one loss lies from another, in words: 12 % below."""
    difference = ours / theirs - 1
    if not math.isfinite(difference):
        return MISSING
    if abs(difference) < 0.005:
        return "level with"
    return f"{abs(100 * difference):.0f} % {'below' if difference < 0 else 'above'}"
