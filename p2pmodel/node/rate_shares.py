"""How two who do not know of each other keep one rate limit together. Pure arithmetic."""

GROW = 1.25
START = 0.02
"""What each may use is so many times what it used lately and this part of the limit more, so that it can grow."""


def shares(limit: int, first: float, second: float) -> tuple[int, int]:
    """What each of two may use of `limit` bytes a second, if they lately used `first` and `second`. Together that is
    `limit` (2 at least); a half each if both want that much, else who wants less gets it, and the other the rest."""
    limit = max(limit, 2)
    one, two = (min(limit / 2, GROW * used + START * limit) for used in (first, second))
    share = one if one < two else limit - two if two < one else limit / 2
    kept = min(max(round(share), 1), limit - 1)
    return kept, limit - kept
