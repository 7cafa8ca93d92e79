"""CH-SIMS: 2,281 Chinese film and television clips, labels in [-1, 1], one for the clip and one for each of its
modalities (M-SENA feature file, published unaligned only; raw sound).

The label histogram is counted over all 2,281 clips.
"""

from bench.data.spec import DatasetSpec, FeatureFile, Recipe, audio_names, msena_names

VERSION = 1

SPEC = DatasetSpec(
    name="sims",
    title="CH-SIMS",
    metrics="sims",
    label_bound=1.0,
    sizes={"train": 1368, "valid": 456, "test": 457},
    features={
        "unaligned": FeatureFile(
            names=msena_names("sims", "unaligned_39.pkl"),
            sha256="c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f",
            text=(39, 768),
            audio=(400, 33),
            vision=(55, 709),
        ),
        "audio": FeatureFile(audio_names("sims"), text=(64, 0), audio=(96_000, 1), vision=(0, 0), format="audio"),
    },
    recipe=Recipe(
        label_counts=(621, 133, 150, 134, 200, 345, 138, 77, 131, 92, 260),
        text_noise=0.80,
        strength=(0.4, 0.4),
    ),
    unimodal=True,
    vocabulary="bert-base-chinese",
)
