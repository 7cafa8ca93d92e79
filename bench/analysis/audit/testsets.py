"""Sizes and class counts of the test splits: what a printed accuracy is a share of.

MOSI and CH-SIMS are counted from the released labels. MOSEI's class counts are the split statistics commonly printed
with it (they add up to its 4,659 test samples). UR-FUNNY: SAM-LML, Sec. A.2. MUStARD's split is not stated anywhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TestSet:
    """Label counts of a test split."""

    __test__ = False  # not a test class, whatever its name looks like

    positive: int
    neutral: int  # label exactly 0
    negative: int
    constant_mae: float | None = None  # mean absolute error of the best constant prediction (the median label)
    polar_constant_mae: float | None = None  # the same over the samples with label != 0

    @property
    def size(self) -> int:
        return self.positive + self.neutral + self.negative

    def classes(self, metric: str) -> tuple[int, int] | None:
        """(positive, negative) samples behind a binary metric; None where the metric is not binary."""
        if metric.startswith("non0"):
            return self.positive, self.negative
        if metric.startswith("has0"):  # label >= 0 counts as positive
            return self.positive + self.neutral, self.negative
        if metric in ("acc2", "f1"):  # CH-SIMS: 0 counts as negative
            return self.positive, self.neutral + self.negative
        return None


TEST_SETS = {
    "mosi": TestSet(277, 30, 379, constant_mae=1.379, polar_constant_mae=1.415),
    "mosei": TestSet(2284, 1025, 1350),
    "sims": TestSet(140, 69, 248),
}
SIZES = {**{name: t.size for name, t in TEST_SETS.items()}, "ur-funny": 994}

AT_LEAST = {"powmix": "Sec. 5.3: averaged over at least five runs"}  # papers whose n is a lower bound
USUAL_RUNS = 5  # seeds 1111-1115 of the M-SENA framework, for rows quoted from it


def samples(dataset: str, metric: str) -> int | None:
    """How many test samples a printed accuracy is a share of; None where that is not known."""
    if metric.startswith("non0") and dataset in TEST_SETS:
        return TEST_SETS[dataset].positive + TEST_SETS[dataset].negative
    return SIZES.get(dataset)
