"""Corrupted inputs: occlusion, dropped frames, missing modalities, noise. Any of them with any backbone and dataset.

`Config.corruption` is {} (none), one part, or {"parts": [part, ...]} with at most one fixed part per kind:

    {"kind": "occlusion", "rate": 0.2}                       random frames of each modality, redrawn every epoch; train
    {"kind": "frame_drop", "mode": "correlated", "rate": p}  or "independent"; test
    {"kind": "text_drop", "rate": p}                         a sample's whole text, with probability p; test
    {"kind": "text_mean", "rate": p}                         the same, the training mean in its place; test
    {"kind": "missing", "rate": MR, "fill": "zero"}          or "noise"; train (redrawn every epoch), valid and test
    {"kind": "feature_noise", "rate": NR, "noise": "gaussian"}   or "laplace", "erasing", "drawn", "drawn3"; all splits

Beside any of these, {"modalities": ["text", "audio"]} keeps only these modalities: the others are blanked in every sample of
all splits, as under "missing" (bimodal and unimodal studies; bench/modalities.py).

What changes only the test split is no part of a training. It is a sweep, a measure of a trained job (bench/measure):
its points are evaluated one by one with the selected weights, after the training that the fixed parts describe (a clean
one where there is none), so that one training serves the plain table and all points of a curve. A point is named
kind-option-rate: "frame_drop-correlated-0.10", "text_drop-0.05"; it replaces a fixed part of its own kind. An
Experiment's row asks for a point by naming it, and for the mean of several, seed by seed, by naming them all (PowMix Figs
6 and 7 average two kinds of noise), while its config and its columns stay plain:

    Row("MulT", "PowMix", variant="p=0.10", x=0.1, cells={"": config("powmix", "mult", "mosei", "powmix")},
        points=("frame_drop-correlated-0.10", "frame_drop-independent-0.10"))

In the frames of values a point's metrics are called "non0_acc2@frame_drop-correlated-0.10".

Readings, where the papers are silent:
- A dropped frame is zeroed where it stands; nothing is shortened and lengths stay. Every step is a frame, padding
  included (M-SENA's text features are not zero there), and falls with probability `rate` on its own (a Bernoulli draw).
- Models that average audio and vision over time read the mean of the remaining frames and the zeros, over all steps.
- In models with a text encoder a dropped word piece becomes the encoder's [MASK]; the first and last piece ([CLS],
  [SEP]) and the attention mask stay, because some models take the other modalities' lengths from it.
- "correlated" drops the same spans of relative time in every modality. A clip is cut into as many equal spans as its
  text has steps; a frame falls with the span its middle lies in. On aligned data these are the same steps.
- The mean representation of text is the mean over the training samples per step: of the text features, or of the
  encoder's hidden states (with the selected weights, over the samples that reach the step).
- Missing modalities: keep exactly round(N |M| (1 - MR)) of the split's cells, one of every sample first (Eq. 34). A
  missing modality is zeroed as if all its frames were dropped, or filled with standard normal noise (word pieces become
  [MASK] either way). A model that `reads_keep` gets its inputs untouched and fills in itself; every model finds
  keep_<modality> [B] bool in its batch. Human-centric features (HKT) come and go with the text.
- Noise U' = (1 - NR) U + NR N (Eq. 35) is put on U_m by a model that has a `feature_hook`, else on its text encoder's
  output and on its other inputs as it reads them, all entries. N has mean 0 and variance 1, Laplace noise too;
  "erasing" zeroes entries with probability NR; "drawn" is Laplace or erasing, "drawn3" any of the three, per sample.

- Modalities that are not kept are zero, word pieces inside [CLS] ... [SEP] [MASK], those of preceding clips too; a model
  that `reads_keep` finds them missing and does with them what its paper does. Their stream stays, so that the network, its
  size and its initial weights are those of the full model. Lengths stay too: of a blank modality a model can know how
  many steps the clip has, and nothing else. Labels of single modalities (CH-SIMS) are labels and stay.

Every draw is a function of (dataset, seed), split, epoch (train alone), the sample's row in the file and the step (of
the whole split, for missing modalities). Neither the method, the backbone, the batch nor the device enters, so that all
are compared on the same corruption; nor does the rate: what falls at 10 % falls at 20 % too.

What two backbones share under one seed:
- which modalities of which samples are missing, where they read the same modalities (a system of text and audio alone
  draws two cells a sample) and the same rows (training: the same fraction);
- which samples lose their text, and which kind of noise a sample gets where the kind is drawn;
- which frames fall at equal numbers of steps; "correlated" in relative time at any number, if the texts have equal
  lengths (features, or word pieces of one encoder);
- a number drawn for noise at an entry of a feature, by its place [step, channel] in the tensor that is noised. Models
  that are noised at different places (U_m, the encoder's output, the input) see noise of one law, not the same numbers.
What they never share: initial weights, batch order, dropout, mixing draws, the rows of a training fraction.
"""

from bench.data.corruption.spec import Corruption, Part, kept_modalities, named, parse, refuse_evaluation

VERSION = 2  # of everything in this package; part of the identity of jobs with a corruption. 2: no backbone in the stream

__all__ = ["VERSION", "Corruption", "Part", "kept_modalities", "named", "parse", "refuse_evaluation"]
