"""What the paper says of each of its six corpora; the numbers stand beside the classes.

The numbers are those of Tables 1 and 2 of Tayebi Arasteh et al., Eur Radiol Exp 8:10 (2024). Where
the printed scan has a misread digit, as the percentage beside it and the release's tables show, it
is corrected: CheXpert's Support devices, PadChest's Cavitation and Volume loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Why a number need not agree with that of a release.
DRAWN = "the paper's draw of 80/20 is not known"
WHOLE = "the paper's number is that of the whole release"
DRAWN_SETS = {"train": DRAWN, "test": DRAWN, "women_train": DRAWN, "women_test": DRAWN}


@dataclass(frozen=True)
class PaperCohort:
    """A corpus in the paper's Tables 1 and 2; what these give as n/a is left out."""

    source: str  # where the images are from, and how they were labeled
    # Table 1, by the keys of `data.cohort.NAMES`: "ap" is the percentage of AP views, the rest
    # being PA; ages are in years, and "women" are percentages, all counted per image.
    sizes: Mapping[str, float]
    positives: Mapping[str, int]  # Table 2: certain positives of a label in the whole cohort
    # Numbers that cannot be expected to agree, and why; `data.cohort --strict` passes over them.
    may_differ: Mapping[str, str]
    # What the release's tables alone give, with images that the paper could not read.
    of_tables: Mapping[str, int] = field(default_factory=dict)
    age_0_is_unknown: bool = False  # such ages were left out

    @property
    def numbers(self) -> dict[str, float]:
        """All of both tables, and the percentage of women in training and test set together."""
        numbers = {**self.sizes, **self.positives}
        if "women_train" in self.sizes:  # does not depend on how the two sets were drawn
            train, test = self.sizes["train"], self.sizes["test"]
            women = train * self.sizes["women_train"] + test * self.sizes["women_test"]
            numbers["women"] = women / (train + test)
        return numbers
