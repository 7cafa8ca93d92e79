"""MMIN: missing modality imagination network (Zhao, Li and Jin, ACL 2021), and its port to regression.

The port, to CMU-MOSI and MOSEI, is the one that GCNet's release brings.

    e_m = encoder of what is left of modality m (zeros where it is missing);  e = concat(e_audio, e_text, e_vision)
    imagined, z = cascade of residual autoencoders of e (parts/imagination.py);  prediction = perceptron of z
    loss: task + lambda_mse MSE(imagined, teacher's embedding of the missing part) + lambda_cycle MSE(e, what a second
    cascade makes of the imagined), e detached there

Preparation: a fusion model of complete input (encoders and perceptron) is trained for `pretrain` epochs. It stays as the
teacher, and its encoders are where the model's begin. Complete input is thus read of training rows and of no others.

Latents: e_audio, e_text and e_vision [B, embedding].

inputs  "utterance"  the mean of each modality over its valid steps, through a perceptron (the port)
        "sequence"   LSTM and maximum over time of audio and vision, convolutions of the text (the original)

What differs from the releases, and the switch back (docs/quirks.md):
- What is missing is what the run's corruption says, of every row the same for all systems; without one nothing is, and
  the teacher's target is its embedding of zeros. The original draws one of six patterns for each training sample and
  epoch and tests each sample six times; the port draws once for all epochs.
- The text encoder, where there is one, is frozen, as both releases read stored features.
- Adam's first moment decays by 0.9 throughout (the original: 0.5 behind the preparation); the rate is constant.
- The preparation's last weights are taken, unclipped; the release clips there too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts.imagination import Cascade, Fusion, PeakLSTM, Perceptron, TextCNN
from bench.models.parts.padded import step_mask
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import masked_mean, one_of

VERSION = 1
BRIEF = {"pretrain": 1}  # parameters of a quick look
MODALITIES = ("audio", "text", "vision")  # order of the joint embedding
STARTS = ("normal", "kaiming", "default")


@dataclass(frozen=True)
class Params:
    """The port's values, CMU-MOSI and MOSEI."""

    encoder: str = "none"  # frozen; "none": the feature file's own text features
    inputs: str = "utterance"  # "utterance": means over time, or "sequence": LSTMs and convolutions (above)
    embedding: int = 128  # width of each modality's embedding
    channels: int = 128  # channels of each of the text's convolutions
    classifier: tuple[int, ...] = (128, 128)  # hidden widths of perceptrons
    autoencoder: tuple[int, ...] = (256, 128, 64)  # layer widths of an autoencoder, down to its code; the way back mirrors them
    blocks: int = 5  # autoencoders of a cascade
    dropout: float = 0.5  # dropout in perceptrons
    lambda_mse: float = 4.0  # weight of the imagination's loss
    lambda_cycle: float = 2.0  # weight of the way back
    share: bool = False  # one cascade for both directions (the original on MSP-IMPROV)
    pretrain: int = 20  # epochs of the fusion model
    clip: float = 5.0  # gradient norm at which each network is clipped by itself; the original: 1
    target: str = "release"  # target for a modality that is there: embedding of zeros ("release"), or 0 ("zero")
    start: str = "normal"  # first weights: "normal"(0, 0.02), "kaiming" (the original) or "default", torch's
    audio_embedding: int | None = None  # width of the audio's embedding; None: `embedding`
    text_embedding: int | None = None  # width of the text's embedding; None: `embedding`
    vision_embedding: int | None = None  # width of the vision's embedding; None: `embedding`

    def __post_init__(self) -> None:
        one_of("mmin", "inputs", self.inputs, ("utterance", "sequence"))
        one_of("mmin", "target", self.target, ("release", "zero"))
        one_of("mmin", "start", self.start, STARTS)


def start_weights(model: nn.Module, how: str) -> None:
    """First values of the weights of linear layers and convolutions; biases keep torch's."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and how != "default":
            nn.init.normal_(layer.weight, std=0.02) if how == "normal" else nn.init.kaiming_normal_(layer.weight)


class Model(TextBackbone):
    """MMIN. Prediction [B], linear. Raises BenchError where the text is too short for its convolutions."""

    reads_keep = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, False, inputs)
        p = self.params = params
        self.aligned, self.preparing, self.preparation = inputs.aligned, False, p.pretrain
        widths = {m: getattr(p, f"{m}_embedding") or p.embedding for m in MODALITIES}
        features = {"audio": inputs.audio[1], "text": self.text_width, "vision": inputs.vision[1]}
        total = sum(widths.values())

        def encoders() -> dict[str, nn.Module]:
            if p.inputs == "utterance":
                return {m: Perceptron(features[m], p.classifier, widths[m], p.dropout) for m in MODALITIES}
            text = TextCNN(inputs.text[0], features["text"], p.channels, widths["text"])
            return {m: text if m == "text" else PeakLSTM(features[m], widths[m]) for m in MODALITIES}

        self.teacher = Fusion(encoders(), Perceptron(total, p.classifier, 1, p.dropout))
        self.student = Fusion(encoders(), Perceptron(p.blocks * p.autoencoder[-1], p.classifier, 1, p.dropout))
        self.imagine = Cascade(total, p.autoencoder, p.blocks)
        self.back = self.imagine if p.share else Cascade(total, p.autoencoder, p.blocks)
        for network in (self.teacher, self.student, self.imagine, *(() if p.share else (self.back,))):
            start_weights(network, p.start)
        self.latent_dims = {m: (d,) for m, d in widths.items()}

    def train(self, mode: bool = True) -> "Model":
        super().train(mode)
        self.teacher.train(mode and self.preparing)
        return self

    def inputs_of(self, hidden: Hidden, batch: Batch) -> dict[str, Tensor]:
        """What the encoders read of complete input: [B, d] each ("utterance"), or [B, T, d]."""
        if self.params.inputs == "sequence":
            return {"audio": batch["audio"], "text": hidden.last * hidden.mask[..., None], "vision": batch["vision"]}
        words = hidden.mask.sum(1).round().long() if self.aligned else None
        found = {}
        for m in MODALITIES:
            if m == "text":
                found[m] = masked_mean(hidden.last, hidden.mask)
            else:
                lengths = batch[f"{m}_lengths"] if words is None else words
                found[m] = masked_mean(batch[m], step_mask(batch[m], lengths.clamp(1, batch[m].shape[1]))[..., 0])
        return found

    def parts_of(self, x: dict[str, Tensor], batch: Batch, missing: bool) -> dict[str, Tensor]:
        """x with zeros for what is missing, or for what is there."""
        found = {}
        for m, v in x.items():
            keep = batch.get(f"keep_{m}")
            keep = torch.ones_like(batch["label"], dtype=torch.bool) if keep is None else keep.bool()
            found[m] = torch.where((keep ^ missing).view(-1, *[1] * (v.dim() - 1)), v, 0.0)
        return found

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        x = self.inputs_of(hidden, batch)
        latents = self.student.embed(self.parts_of(x, batch, missing=False))
        return Encoded(latents, {"teacher": self.target_of(x, batch)} if self.training else {})

    @torch.no_grad()
    def target_of(self, x: dict[str, Tensor], batch: Batch) -> Tensor:
        """What is to be imagined, [B, D]: the teacher's embedding of the missing part."""
        found = self.teacher.embed(self.parts_of(x, batch, missing=True))
        if self.params.target == "zero":
            found = self.parts_of(found, batch, missing=True)
        return torch.cat([found[m] for m in MODALITIES], 1)

    def fuse(self, latents: Latents) -> Output:
        e = torch.cat([latents[m] for m in MODALITIES], 1)  # (B, D)
        imagined, codes = self.imagine(e)
        return Output(self.student.predictor(codes).squeeze(-1), {"fusion": codes, "embedding": e, "imagined": imagined})

    def terms(self, side: dict[str, Tensor], output: Output) -> dict[str, Tensor]:
        """mse and cycle, unweighted; the cycled embedding and its codes join the output's features."""
        features = output.features
        features["cycled"], features["codes_cycle"] = self.back(features["imagined"])
        return {
            "mse": F.mse_loss(features["imagined"], side["teacher"]),
            "cycle": F.mse_loss(features["cycled"], features["embedding"].detach()),
        }

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        if "teacher" not in encoded.side:  # in evaluation nothing complete is read
            return {}
        terms = self.terms(encoded.side, output or self.fuse(encoded.latents))
        return {"imagination": self.params.lambda_mse * terms["mse"], "cycle": self.params.lambda_cycle * terms["cycle"]}

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the fusion model on complete input."""
        prediction, _ = self.teacher(self.inputs_of(self._states(batch), batch))
        return {"task": F.mse_loss(prediction.squeeze(-1), batch["label"])}

    def _states(self, batch: Batch) -> Hidden:
        if self.text_encoder is not None:
            return self.text_encoder(batch["text_bert"])
        x = batch["text"]
        return Hidden(x, x, x.ne(0).any(-1).to(x.dtype))

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        if epoch < 1:
            return (Pass((Update("pretrain", self.prepare, ("teacher",), "pretrain"),)),)
        return (Pass((Update(groups=("main",)),)),)

    def on_epoch_start(self, epoch: int) -> None:
        self.preparing = epoch < 1
        self.teacher.train(self.training and self.preparing)
        if epoch == 1 and self.preparation:
            self.student.encoders.load_state_dict(self.teacher.encoders.state_dict())

    def networks(self) -> list[nn.Module]:
        """Whose gradients are clipped one by one."""
        cascades = [self.imagine] if self.params.share else [self.imagine, self.back]
        return [*self.student.encoders.values(), self.student.predictor, *cascades]

    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        for network in self.networks():
            nn.utils.clip_grad_norm_(network.parameters(), self.params.clip)

    def groups(self) -> list[Group]:
        own = [(n.startswith("teacher."), q) for n, q in self.own_named_parameters()]
        return [Group("teacher", [q for t, q in own if t]), Group("main", [q for t, q in own if not t])]
