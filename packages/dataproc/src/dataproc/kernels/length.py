"""Which texts surely have enough characters (dataproc/length.py)."""

from dataproc.kernels.build import signed
from dataproc.native import I64, U8


def have_sure_characters(data: U8, bounds: I64, count: int, sure: U8, enough: U8) -> int:
    """enough[row] = 1 where so many are found. sure: (256, 256), flat."""
    for row in range(len(enough)):
        found, at, end = 0, bounds[row], bounds[row + 1]
        while found < count and at < end:
            following = signed(data[at + 1]) if at + 1 < end else 0
            found += sure[256 * signed(data[at]) + following]
            at += 1
        enough[row] = found >= count
    return 0
