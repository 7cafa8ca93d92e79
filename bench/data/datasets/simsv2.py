"""CH-SIMS v2, supervised part: 4,403 Chinese film and television clips, labels in [-1, 1], one for the clip and one for
each of its modalities (M-SENA's layout, published unaligned only).

The size of the training split, steps and columns are those of config/config_regression.py of the authors' repository
(thuiar/ch-sims-v2); no text states the sizes of validation and test, which are those that users of the data set report.
Nothing is published that could be a hash or a histogram of its labels: generated data take those of CH-SIMS.
"""

from bench.data.datasets.sims import SPEC as SIMS
from bench.data.spec import DatasetSpec, FeatureFile

VERSION = 1

SPEC = DatasetSpec(
    name="simsv2",
    title="CH-SIMS v2",
    metrics="sims",
    label_bound=1.0,
    sizes={"train": 2722, "valid": 647, "test": 1034},
    features={
        "unaligned": FeatureFile(
            names=(
                "SIMSv2/Processed/unaligned.pkl", "SIMSv2/Processed/unaligned_50.pkl",
                "SIMSv2/Processed/sims_unaligned.pkl", "SIMSv2/unaligned.pkl", "Processed/SIMSv2/unaligned.pkl",
            ),
            text=(50, 768),
            audio=(925, 25),
            vision=(232, 177),
        ),
    },
    recipe=SIMS.recipe,
    unimodal=True,
    vocabulary="bert-base-chinese",
    nearest="sims",
)  # fmt: skip
