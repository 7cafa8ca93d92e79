"""CMU-MOSEI: 22,856 opinion clips of about 1,000 speakers, labels in [-3, 3] (M-SENA
feature files; the word-level pickle of the MAG-BERT line; raw sound).

Label histogram: the totals of negative, neutral and positive clips are those published for these splits (6,594 /
4,998 / 11,264); their spread over multiples of 1/3 (three annotators) is an approximation that gives 41 % of labels
rounding to 0 and a mean absolute label of 0.82.
"""

from bench.data.spec import DatasetSpec, FeatureFile, Recipe, audio_names, msena_names, word_names

VERSION = 1

SPEC = DatasetSpec(
    name="mosei",
    title="CMU-MOSEI",
    metrics="msena",
    label_bound=3.0,
    sizes={"train": 16326, "valid": 1871, "test": 4659},
    features={
        "unaligned": FeatureFile(
            names=msena_names("mosei", "unaligned_50.pkl"),
            sha256="ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
            text=(50, 768),
            audio=(500, 74),
            vision=(500, 35),
        ),
        "aligned": FeatureFile(
            names=msena_names("mosei", "aligned_50.pkl"),
            sha256="45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
            text=(50, 768),
            audio=(50, 74),
            vision=(50, 35),
        ),
        "word": FeatureFile(
            names=word_names("mosei"), text=(50, 0), audio=(50, 74), vision=(50, 35), format="word", metrics="mag"
        ),
        "audio": FeatureFile(audio_names("mosei"), text=(96, 0), audio=(96_000, 1), vision=(0, 0), format="audio"),
    },
    recipe=Recipe(
        label_counts=(
            90, 190, 270, 560, 550, 700, 1100, 1350, 1784,
            4998,
            2650, 2500, 2250, 1300, 900, 900, 420, 230, 114,
        ),
        text_noise=0.24,
        strength=(0.7, 0.7),
    ),  # fmt: skip
    context=2,
    unusable_audio=frozenset(  # left out by MMML
        ("3aIQUQgawaI$_$12", "94ULum9MYX0$_$2", "94ULum9MYX0$_$11", "mRnEJOLkhp8$_$24", "mRnEJOLkhp8$_$26",
         "aE-X_QdDaqQ$_$3")
    ),
)
