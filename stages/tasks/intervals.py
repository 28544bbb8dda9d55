"""Intervals of shares of hits and of their differences, for tasks whose samples are right or wrong, and of means of other statistics."""

import numpy as np
from scipy.special import stdtrit

Z = 1.959964
"""Quantile of the normal distribution for a two-sided 95 % interval."""
PROBABILITY = 0.975
"""Probability below that quantile."""
HALVINGS = 60
"""Number of bisection steps for an end of an interval: more than a double has bits."""


def wilson_of_share(share: float, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval around a share of hits, 0-1, of so many images (Wilson, JASA 22, 1927)."""
    scale, spread = 1 + Z**2 / images, Z * np.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    middle = share + Z**2 / (2 * images)
    low, high = float((middle - spread) / scale), float((middle + spread) / scale)
    return max(min(low, share), 0.0), min(max(high, share), 1.0)  # at shares of 0 and 1 the ends are the share, but for rounding


def paired_drop(before: np.ndarray, after: np.ndarray, images: int | None = None) -> tuple[float, float, float]:
    """Return by how much the share of hits fell on the same images, and its 95 % interval (`tango`).

    Args:
        before: (n,) bool.
        after: (n,) bool, of the same images.
        images: Number of images of another part, where the interval is to be what that part would show with the same shares of lost and won images.
    """
    count = len(before) if images is None else images
    lost, won = float((before & ~after).mean()), float((~before & after).mean())
    low, high = tango(lost * count, won * count, count)
    return lost - won, float(low), float(high)


def tango(lost: np.ndarray | float, won: np.ndarray | float, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper end of the 95 % score interval for the drop between two paired proportions.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design", Statistics in
    Medicine 17, 1998, equations 3 to 5. The interval has all drops D with |b - c - nD| <= z sqrt(n (2q + D(1 - D))), where q is the
    likeliest share of won images if the drop is D. If no image was lost or won, the upper end is z^2 / (n + z^2).

    Args:
        lost: b: images that were right before and are wrong after, any shape.
        won: c: images that were wrong before and are right after, of the same shape.
        images: n: number of images.
    """
    b, c = np.asarray(lost, dtype=np.float64), np.asarray(won, dtype=np.float64)
    return -_upper_end(c, b, images), _upper_end(b, c, images)


def _upper_end(b: np.ndarray, c: np.ndarray, n: int) -> np.ndarray:
    """Find the largest drop in the interval by halving between what was seen, which is in it, and 1."""
    inside, outside = (b - c) / n, np.ones(np.broadcast(b, c).shape)
    for _ in range(HALVINGS):
        drop = (inside + outside) / 2
        linear = -b - c + (2 * n - b + c) * drop
        root = np.sqrt(np.maximum(linear**2 + 8 * n * c * drop * (1 - drop), 0))
        won_share = (root - linear) / (4 * n)
        holds = (b - c - n * drop) ** 2 <= Z**2 * n * (2 * won_share + drop * (1 - drop))
        inside, outside = np.where(holds, drop, inside), np.where(holds, outside, drop)
    return outside


def least_provable_drop(images: int, disagreement: float = 0.0) -> float:
    """Return the upper end of `paired_drop`'s interval where no accuracy is lost: no smaller drop can be shown with so few images.

    Args:
        images: Number of test images.
        disagreement: Share of the images, 0-1, on which the two networks differ, half of them each way; whole images are counted.
    """
    each_way = min(int(np.ceil(disagreement * images / 2)), images // 2)
    return float(tango(each_way, each_way, images)[1])


def images_to_prove(drop: float) -> int:
    """Return how many test images, all alike before and after, show that accuracy fell by no more than `drop`."""
    return max(int(np.ceil(Z**2 * (1 - drop) / drop)), 1)


def mean_interval(found: float, influence: np.ndarray, reach: float, samples: int | None = None) -> tuple[float, float, float]:
    """Return a figure that is a mean over samples, or nearly one, with both ends of its 95 % interval.

    The upper end is the largest figure F that the samples do not refute. A share w of unseen samples, each `reach` above the mean, leads to F, where

        F - found = w * reach,  n (w * reach)^2 = t^2 (1 - w) (s^2 + w * reach^2),

    with s^2 the variance of the samples and t the quantile of Student's distribution. So the variance is that of the figure which is tested, as in
    Wilson's and Tango's score intervals, and not that of the samples alone. If all samples are alike, s is 0, and w is t^2 / (n + t^2): the interval
    has a width even if nothing differs. The lower end mirrors the upper one.

    Args:
        found: The figure.
        influence: (n,) float64 with a mean of 0: how much the figure rises with the weight of each sample.
        reach: How far one sample may lie from the mean; at least as far as the farthest of `influence` is taken.
        samples: Number of new samples to make a forecast for; None for those that were seen.
    """
    seen = len(influence)
    count = seen if samples is None else samples
    variance = float(np.square(influence).sum()) / max(seen - 1, 1)
    reach = max(reach, float(np.abs(influence).max()))
    if not reach:
        return found, found, found
    quantile = float(stdtrit(max(seen - 1, 1), PROBABILITY)) ** 2
    linear = quantile * (reach**2 - variance)
    share = (linear + np.sqrt(linear**2 + 4 * (count + quantile) * quantile * reach**2 * variance)) / (2 * (count + quantile) * reach**2)
    return found, found - float(share) * reach, found + float(share) * reach


def typical_loss(losses: np.ndarray) -> float:
    """Return the `reach` of samples that may be lost entirely, if the lost ones are like those that were seen: the mean of their squares over their mean.

    Args:
        losses: (n,) how far the figure falls with the share of samples that are lost, if they are like this one; at least 0.
    """
    return float(np.square(losses).sum() / max(losses.sum(), 1e-12))


def unseen_share(samples: int) -> float:
    """Return the largest share of samples, 0-1, that may differ where none of so many does: `mean_interval` without variance."""
    quantile = float(stdtrit(max(samples - 1, 1), PROBABILITY)) ** 2
    return quantile / (samples + quantile)


def least_provable_fall(reach: float, samples: int, differing: float = 0.0) -> float:
    """Return the upper end of `mean_interval` where the figure does not fall: no smaller fall can be shown with so few samples.

    Args:
        reach: As for `mean_interval`.
        samples: Number of samples.
        differing: How far each sample rises or falls, half of them each way, as a share of `reach`.
    """
    each = np.where(np.arange(samples) % 2, differing, -differing) * reach
    return mean_interval(0.0, each - each.mean(), reach)[2]


def samples_for(share: float) -> int:
    """Return the least number of samples whose `unseen_share` is at most `share`, a positive ratio."""
    samples = max(int(Z**2 * (1 - share) / share), 2)
    while unseen_share(samples) > share:
        samples += 1
    return samples
