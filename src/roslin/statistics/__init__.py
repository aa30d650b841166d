"""How sure a figure is: intervals of shares, ratios and geometric means, and tests of two of them.

`tally.py` counts outcomes by cluster; `share.py`, `paired.py` and `gmean.py` say how sure their shares, differences and
geometric means are; `resample.py` has the bootstrap of ratios; `interval.py` has what all of them share.
"""

from roslin.statistics.gmean import (
    GeometricDifference,
    GeometricMean,
    gmean,
    gmean_difference,
    gmean_of,
    paired_gmean_difference,
)
from roslin.statistics.interval import CONFIDENCE, Interval, Z, holm
from roslin.statistics.paired import paired_difference, sign_flip_p
from roslin.statistics.resample import FEWEST_FOR_INTERVALS, RESAMPLES, paired_ratio_difference, ratio_interval
from roslin.statistics.share import Share, share_difference, share_difference_p, share_of, wilson_interval
from roslin.statistics.tally import Tally

__all__ = [
    "CONFIDENCE",
    "FEWEST_FOR_INTERVALS",
    "RESAMPLES",
    "GeometricDifference",
    "GeometricMean",
    "Interval",
    "Share",
    "Tally",
    "Z",
    "gmean",
    "gmean_difference",
    "gmean_of",
    "holm",
    "paired_difference",
    "paired_gmean_difference",
    "paired_ratio_difference",
    "ratio_interval",
    "share_difference",
    "share_difference_p",
    "share_of",
    "sign_flip_p",
    "wilson_interval",
]
