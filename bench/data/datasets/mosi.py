"""CMU-MOSI: 2,199 opinion clips of 93 film-review videos, labels in [-3, 3] (M-SENA feature
files; the word-level pickle of the MAG-BERT line; raw sound).

The label histogram is counted over all 2,199 clips; the few labels off the 0.2 grid count at its nearest point.
"""

from bench.data.spec import DatasetSpec, FeatureFile, Recipe, audio_names, msena_names, word_names

VERSION = 1

SPEC = DatasetSpec(
    name="mosi",
    title="CMU-MOSI",
    metrics="msena",
    label_bound=3.0,
    sizes={"train": 1284, "valid": 229, "test": 686},
    features={
        "unaligned": FeatureFile(
            names=msena_names("mosi", "unaligned_50.pkl"),
            sha256="78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
            text=(50, 768),
            audio=(375, 5),
            vision=(500, 20),
        ),
        "aligned": FeatureFile(
            names=msena_names("mosi", "aligned_50.pkl"),
            sha256="d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
            text=(50, 768),
            audio=(50, 5),
            vision=(50, 20),
        ),
        "word": FeatureFile(
            names=word_names("mosi"), text=(50, 0), audio=(50, 74), vision=(50, 47), format="word", metrics="mag"
        ),
        "audio": FeatureFile(audio_names("mosi"), text=(96, 0), audio=(96_000, 1), vision=(0, 0), format="audio"),
    },
    recipe=Recipe(
        label_counts=(
            12, 32, 36, 42, 63, 103, 76, 101, 81, 79, 110, 76, 58, 89, 65,
            96,
            73, 80, 65, 81, 62, 75, 96, 93, 98, 120, 96, 56, 44, 29, 12,
        ),
        text_noise=0.30,
        strength=(0.6, 0.6),
    ),  # fmt: skip
    context=2,
)
