"""UR-FUNNY, version 2: 9,588 punchlines of TED talks with their contexts, funny (1) or not (0) (HKT's pickle).

Generated labels are half and half, as in the data set.
"""

from bench.data.spec import DatasetSpec, FeatureFile, Recipe, hkt_names

VERSION = 1

SPEC = DatasetSpec(
    name="ur_funny",
    title="UR-FUNNY",
    metrics="binary",
    label_bound=1.0,
    sizes={"train": 7614, "valid": 980, "test": 994},
    features={
        "hkt": FeatureFile(
            names=hkt_names("ur_funny"),
            text=(64, 0),
            audio=(64, 60),
            vision=(64, 36),
            hcf=(64, 4),
            format="hkt",
        ),
    },
    recipe=Recipe(label_counts=(1, 0, 1), text_noise=1.2, strength=(0.5, 0.5)),
)
