"""MUStARD: 690 utterances of television series with their contexts, sarcastic (1) or not (0) (HKT's pickle).

The division into splits is not stated in print. All accuracies that HKT and SAM-LML report are multiples of 1/68, so
the test split has 68 utterances; the division of the others is an assumption, used for generated data alone. Generated
labels are half and half, as in the data set.
"""

from bench.data.spec import DatasetSpec, FeatureFile, Recipe, hkt_names

VERSION = 1

SPEC = DatasetSpec(
    name="mustard",
    title="MUStARD",
    metrics="binary",
    label_bound=1.0,
    sizes={"train": 554, "valid": 68, "test": 68},
    features={
        "hkt": FeatureFile(
            names=hkt_names("mustard"),
            text=(77, 0),
            audio=(77, 60),
            vision=(77, 36),
            hcf=(77, 4),
            format="hkt",
        ),
    },
    recipe=Recipe(label_counts=(1, 0, 1), text_noise=1.2, strength=(0.5, 0.5)),
    sizes_published=False,
)
