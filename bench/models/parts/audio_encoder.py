"""Audio encoders of models that read raw sound: 16 kHz waves in, hidden states of frames out.

The encoders are of wav2vec 2.0's family (data2vec, HuBERT): a convolutional front that turns 320 samples into a frame,
then a transformer. Built inside a model by name (bench/encoders.py), from local files only.

    finetune = True    the transformer is trained, the convolutional front never is (MMML)
    finetune = False   frozen: no gradient, evaluation mode

Choices:
- SpecAugment's time masks and layer drop, both on in the checkpoints' own settings, are off: they draw from numpy's
  global stream or decide on the host, so that a run could not be repeated or captured.
- A wave too short for one frame (a clip without context, say) has no valid frame. transformers would count its frames
  as negative and so attend to nearly all of them; here the encoder is shown one frame of it, which `mask` leaves out.
- The layers are called here and not by transformers' own encoder, which writes zeros through a mask of booleans and asks
  the device whether anything is masked; a test holds the two against each other.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench import encoders
from bench.errors import BenchError
from bench.models.base import Batch, Inputs

_PLAIN = dict(layerdrop=0.0, mask_time_prob=0.0, mask_feature_prob=0.0)


class Frames(NamedTuple):
    """last [B, T, d]: hidden states of the last layer; mask [B, T] float: frames of real sound; all: the states of
    every layer, its input first, where they are asked for."""

    last: Tensor
    mask: Tensor
    all: tuple[Tensor, ...] = ()


def _build(name: str) -> nn.Module:
    """The encoder of a name. The global random stream is left as it was."""
    encoders.find(name, "audio")
    with torch.random.fork_rng(devices=[]), encoders.loading(name, "audio"):
        if not encoders.spec(name).test_only:
            from transformers import AutoModel

            return AutoModel.from_pretrained(str(encoders.find(name, "audio")), local_files_only=True, **_PLAIN)
        from transformers import Data2VecAudioConfig, Data2VecAudioModel

        torch.default_generator.manual_seed(0)  # the CPU's alone; fork_rng puts it back
        front = dict(conv_dim=(32,) * 4, conv_kernel=(10, 8, 4, 4), conv_stride=(5, 4, 4, 4), num_conv_pos_embeddings=1)
        sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
        return Data2VecAudioModel(Data2VecAudioConfig(**front, **sizes, **_PLAIN))


class AudioEncoder(nn.Module):
    """An encoder by name. `hidden_size` d; `is_test_only` marks random weights.

    Raises BenchError if the encoder is not on this machine (it says how to get it) or reads no waves.
    """

    def __init__(self, name: str, finetune: bool = True) -> None:
        super().__init__()
        self.name, self.finetune = name, finetune
        self.is_test_only = encoders.spec(name).test_only
        self.transformer = _build(name).float()  # checkpoints may be stored in half precision
        config = self.transformer.config
        if not hasattr(self.transformer, "feature_extractor") or not hasattr(config, "conv_kernel"):
            raise BenchError(f"audio encoder '{name}' is a {config.model_type} model, which reads no waves")
        self.hidden_size: int = config.hidden_size
        self._front = list(zip(config.conv_kernel, config.conv_stride))
        self._least = 1  # samples that give one frame
        for kernel, stride in reversed(self._front):
            self._least = (self._least - 1) * stride + kernel
        self.requires_grad_(finetune)
        self.transformer.feature_extractor._freeze_parameters()
        self.train(self.training)

    def train(self, mode: bool = True) -> "AudioEncoder":
        return super().train(mode and self.finetune)

    def frames(self, samples: Tensor | int) -> Tensor | int:
        """Frames T >= 0 of waves of so many samples."""
        for kernel, stride in self._front:
            samples = (samples - kernel) // stride + 1
        return samples.clamp(min=0) if isinstance(samples, Tensor) else max(samples, 0)

    def forward(self, wave: Tensor, mask: Tensor, every: bool = False) -> Frames:
        """wave [B, S] float, normalised; mask [B, S] int64 of its samples. `every`: the states of all layers too."""
        heard = mask.sum(1)  # (B,)
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            front = self.transformer.feature_extractor(wave).transpose(1, 2)
            projected = self.transformer.feature_projection(front)
            hidden = projected[0] if isinstance(projected, tuple) else projected  # (B, T, d); a tuple in data2vec
            step = torch.arange(hidden.shape[1], device=wave.device)  # (T,)
            states = self._transform(hidden, step < self.frames(heard.clamp(min=self._least))[:, None])
        valid = (step < self.frames(heard)[:, None]).to(states[-1].dtype)
        return Frames(states[-1], valid, states if every else ())

    def _transform(self, hidden: Tensor, shown: Tensor) -> tuple[Tensor, ...]:
        """The transformer over frames [B, T, d], of which those in shown [B, T] bool are attended to: the states of its
        input and of every layer."""
        encoder, config = self.transformer.encoder, self.transformer.config
        hidden = torch.where(shown[..., None], hidden, 0.0)
        mask = shown[:, None, None]  # (B, 1, 1, T)
        if getattr(config, "_attn_implementation", "eager") != "sdpa":
            mask = torch.where(mask, 0.0, torch.finfo(hidden.dtype).min).to(hidden.dtype)
        hidden = hidden + encoder.pos_conv_embed(hidden)
        norm_first = getattr(config, "do_stable_layer_norm", False)
        hidden = encoder.dropout(hidden if norm_first else encoder.layer_norm(hidden))
        states = [hidden]
        for layer in encoder.layers:
            out = layer(states[-1], attention_mask=mask)
            states.append(out[0] if isinstance(out, tuple) else out)  # a tuple before transformers 5
        if norm_first:
            states[-1] = encoder.layer_norm(states[-1])
        return tuple(states)


def listener(model: str, name: str, finetune: bool, inputs: Inputs) -> AudioEncoder | None:
    """The audio encoder of a model, or None where the file's audio features stand for its states (name "none"). Raises
    BenchError if there is no sound, or features where the encoder reads waves."""
    if inputs.audio_kind == "none":
        raise BenchError(f"{model}: no sound in these data; put a folder 'wav' or audio_features.npz beside label.csv")
    if name == encoders.NONE:
        return None
    if inputs.audio_kind != "wave":
        raise BenchError(
            f"{model}: audio encoder '{name}' reads waves, but these data have features of sound; set audio_encoder to "
            "none"
        )
    return AudioEncoder(name, finetune)


def hear(encoder: AudioEncoder | None, batch: Batch, every: bool = False) -> Frames:
    """Frames of waves, or the features that stand for them."""
    if encoder is not None:
        return encoder(batch["audio"], batch["audio_mask"], every)
    x = batch["audio"]  # (B, T, d_a)
    valid = torch.arange(x.shape[1], device=x.device) < batch["audio_lengths"][:, None]  # (B, T)
    return Frames(x, valid.to(x.dtype))


class Bins(nn.Module):
    """Mean of the valid frames in `bins` equal parts of T frames (or of the one frame a bin lies in, where there are
    fewer frames): states [B, T, w], mask [B, T] -> [B, bins, w], zero where a bin has none, and which have, bool."""

    member: Tensor

    def __init__(self, frames: int, bins: int) -> None:
        super().__init__()
        start = torch.arange(bins) * frames // bins
        end = -(-torch.arange(1, bins + 1) * frames // bins)  # rounded up
        step = torch.arange(frames)
        member = (step >= start[:, None]) & (step < end[:, None])  # (bins, T)
        self.register_buffer("member", member.float(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        count = mask.to(self.member.dtype) @ self.member.T  # (B, bins)
        total = self.member.to(x.dtype) @ (x * mask[..., None])  # (B, bins, w)
        return total / count.clamp(min=1)[..., None], count > 0
