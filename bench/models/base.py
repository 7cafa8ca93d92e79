"""The Backbone contract: encode to per-modality latents, fuse latents to a prediction.

Shapes: B batch, L word pieces, T time steps, d feature width. A batch is a dict of tensors already on the device.
Always there: label [B] float (0 or 1 where Inputs.task is "binary"), index [B] int64 (row in the split). Beside them,
by the feature file's format (bench/data/spec.py):

    msena  text [B, L, d_t] float (frozen features), or, for a model that declares `needs_tokens` and has a text
           encoder, text_bert [B, 3, L] int64 (token ids, attention mask, segment ids) in its place;
           audio [B, T_a, d_a], vision [B, T_v, d_v]; audio_lengths, vision_lengths [B] int64; label_text, label_audio,
           label_vision [B] for a model that declares `needs_unimodal`, or `wants_unimodal` where the data have them
    word   text_bert, and beside each word piece its word's audio [B, L, d_a] and vision [B, L, d_v], zero at special
           tokens and padding; lengths (word pieces, special tokens included), the same again as audio_lengths and
           vision_lengths [B]. L is the parameter max_len
    hkt    as word, of the context and the punchline, and hcf [B, L, 4] (Inputs.hcf)
    audio  text_bert; the sound, as Inputs.audio_kind says:
               "wave"      audio [B, 96000] float32 of zero mean and unit variance, audio_mask [B, 96000] int64
               "features"  audio [B, T, d] float32, audio_lengths [B] int64
               "none"      no sound: transcripts and labels alone
           context_text_bert, context_audio, and context_audio_mask or context_audio_lengths of the preceding clips,
           where Inputs.context says so (length 0, mask 0 where a clip has none); label_text, label_audio, label_vision
           [B], which are the clip's label where the dataset has no labels of single modalities

A step must be capturable as a CUDA graph (tests/test_capture.py proves it for every cell): no branch on tensor values,
no .item(), no boolean indexing, no tensor made on the host in a step, state in buffers that are changed in place. A
model that does one thing in some steps and another thing in others, by the epoch or a count of its own on the host,
says which in `variant`. Each model file defines `VERSION` (a literal int), `Params` (frozen dataclass) and `Model`.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

Batch = dict[str, Tensor]
Latents = dict[str, Tensor]  # modality -> [B, ...], in the backbone's order


@dataclass(frozen=True)
class Inputs:
    """What a model may know of the data when it is built."""

    text: tuple[int, int]  # (L, d_t); d_t = 0 where only word pieces are there
    audio: tuple[int, int]  # (T_a, d_a); T_a = 1 after averaging over time
    vision: tuple[int, int]
    label_bound: float = 3.0  # labels lie in [-bound, bound]
    train_size: int = 0  # for models that keep state per training sample
    aligned: bool = False  # audio and vision have one row for each step of the text
    hcf: tuple[int, int] | None = None  # (L, 4), human-centric features of HKT's files
    audio_kind: str = "features"  # or "wave": (96000, 1) is then `audio`; or "none"
    context: bool = False  # preceding clips come with each clip
    task: str = "regression"  # or "binary": labels 0 and 1, the prediction is a logit


class Encoded(NamedTuple):
    """latents: what a mixer acts on. side: whatever the model's own auxiliary losses need, of the un-mixed batch."""

    latents: Latents
    side: dict[str, Tensor]


class Output(NamedTuple):
    """prediction [B]; features: named intermediate tensors (for probes, t-SNE, parity tests)."""

    prediction: Tensor
    features: dict[str, Tensor]


@dataclass(frozen=True)
class Group:
    """A named optimiser group. Rates come from the protocol: group_lr[name], else lr; likewise weight decay."""

    name: str
    params: list[nn.Parameter] = field(hash=False)
    decay: bool = True  # False: weight decay is 0 for this group whatever the protocol says


@dataclass(frozen=True)
class Update:
    """One update of the weights on a batch, where a system makes several kinds: which loss, which weights, which moments.

    losses: batch -> {name: scalar}, already weighted, in training mode; None is the step of every model (task, mixtures,
    aux_losses, after_backward). Groups that are not named keep their weights, though gradients reach them and clipping
    by norm counts them. A named optimiser has moments of its own; its rates are group_lr["<optimiser>.<group>"] and, where
    that is not given, the group's.
    """

    name: str = ""  # before the losses' names in history.csv: train_<name>_<loss>
    losses: Callable[[Batch], dict[str, Tensor]] | None = field(default=None, hash=False)
    groups: tuple[str, ...] | None = None  # names of the groups that it steps; None: all
    optimiser: str = ""


@dataclass(frozen=True)
class Pass:
    """One pass over the training split: the updates that each batch makes, in their order."""

    updates: tuple[Update, ...] = (Update(),)
    share: float = 1.0  # of the batches, rounded down, at least one


class Backbone(nn.Module):
    """Base class of every backbone and system."""

    time_mean: bool = False  # audio and vision are averaged over time, padding included (M-SENA need_normalized)
    needs_tokens: bool = False  # wants text_bert, not text
    needs_words: bool = False  # reads audio and vision of word pieces (formats "word", "hkt", or an aligned file)
    needs_unimodal: bool = False  # wants label_text, label_audio, label_vision
    wants_unimodal: bool = False  # the same, where the data have them
    cut_keys: tuple[str, ...] = ()  # texts of a batch of which nothing is read beyond a row's own steps: cut by the loop
    # What the step does is frozen when it is captured. Whatever the host decides between steps (`on_epoch_start`, say)
    # must show here: a captured step is replayed only under the variant that it was captured in.
    variant: Hashable = ()
    eval_batch: int | None = None  # rows of a batch in evaluation, where the loop's number would be too large
    latent_dims: dict[str, tuple[int, ...]]  # modality -> shape of one sample's latent; set by __init__
    label_bound: float
    # A model that has unimodal features U_m [B, T, d] sets this to None and calls what it finds there on each, in
    # `encode`: whoever draws a corruption sets a function (modality, U_m) -> U_m on the instance (SAM-LML Eq. 35).
    feature_hook: Callable[[str, Tensor], Tensor] | None
    # How a model reads other rows of the training split than its batch (numbers [n] -> batch); the loop sets it.
    rows_of: Callable[[Tensor], Batch] | None = None
    preparation: int = 0  # epochs before the first that counts, numbered 1 - preparation ... 0: never selected, base rates
    # Reads a clip among those of its video (bench/data/videos.py): whatever was [B, ...] in a batch is [B, C, ...] then,
    # with labels and utterances [B, C]; label, index and place [B]. Params.neighbours: C at most (0: the whole video).
    reads_videos: bool = False
    reads_keep: bool = False  # deals with missing modalities itself, by keep_<modality> [B] bool in the batch

    @classmethod
    def check(cls, params: Any, protocol: Any) -> None:
        """Raise BenchError, in one line, where the model cannot be trained under a protocol (train/protocol.py) with
        these parameters: asked before anything starts, and again before the first step."""

    def encode(self, batch: Batch) -> Encoded:
        """Per-modality latents before late fusion."""
        raise NotImplementedError

    def fuse(self, latents: Latents) -> Output:
        """Prediction [B'] from latents of any batch size B'."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        return self.fuse(self.encode(batch).latents)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        """The model's own extra losses, already weighted, of the un-mixed batch. `output` is None on a step that
        trains on mixtures only."""
        return {}

    def groups(self) -> list[Group]:
        """Optimiser groups; parameters left out are never trained. Mixer parameters join the group 'main'."""
        return [Group("main", list(self.parameters()))]

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        """What an epoch consists of: systems with stages or alternating optimisers say it here. Every pass has a batch
        order of its own. """
        return (Pass(),)

    def on_epoch_start(self, epoch: int) -> None:
        """Called with the epoch number, from 1 (or 1 - preparation), before its first batch."""

    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        """Called after every backward pass, before the optimiser (gradient modulation, label generation)."""

    def scalars(self) -> dict[str, float]:
        """Numbers worth a column in history.csv, read once per epoch (modulation coefficients and the like)."""
        return {}

    def unused_reference_parameters(self) -> Mapping[str, Any]:
        """Reference state-dict entries that have no counterpart here, with the reason (parity tests)."""
        return {}
