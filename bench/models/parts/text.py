"""Text encoders of the models that fine-tune one: word pieces in, hidden states out.

The encoder is the plain transformer without its pooler (most backbones do not read it; in M-SENA its weights exist and
never get a gradient), or with it where a model asks for `pooler`: Lin tanh of the first position, with the checkpoint's
weights if it has any. It is built inside the model by name (bench/encoders.py), from local files only.

    finetune = True    trained with the model; weight decay spares biases and LayerNorms where the recipe says so
    finetune = False   frozen: no gradient, evaluation mode (no dropout inside the encoder)
    encoder = "none"   no encoder: the feature file's frozen features stand for its last hidden state, as if cached
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench import encoders
from bench.models.base import Backbone, Batch, Encoded, Group, Inputs

_POLARITY = 2.0  # length of a word's polarity beside that of its other features, in `tiny-words`
BIAS_AND_NORM = ("bias", "layernorm", "layer_norm")  # name parts of what weight decay usually spares


class Hidden(NamedTuple):
    """last, previous [B, L, d]: hidden states of the last layer and of the one before; mask [B, L] float. Where the
    model asks for them: pooled [B, d], the pooler's output, and all, the states of every layer, embeddings first."""

    last: Tensor
    previous: Tensor
    mask: Tensor
    pooled: Tensor | None = None
    all: tuple[Tensor, ...] = ()


class Pooler(nn.Module):
    """Lin tanh of the first position, of encoders that have no pooler of their own."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d, d)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x[:, 0]).tanh()


def _build(name: str, pooler: bool = False) -> nn.Module:
    """The transformer of a name. The global random stream is left as it was, whatever loading draws from it."""
    with torch.random.fork_rng(devices=[]):
        if encoders.spec(name).test_only:
            encoders.find(name)
            from transformers import BertConfig, BertModel

            torch.default_generator.manual_seed(0)  # the CPU's alone; fork_rng puts it back
            sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
            model = BertModel(BertConfig(**sizes))
            if name == encoders.TINY_WORDS:
                _teach(model)
        else:
            folder = encoders.find(name)
            from transformers import AutoModel

            with encoders.loading(name):
                model = AutoModel.from_pretrained(str(folder), local_files_only=True)
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        if not pooler:
            model.pooler = None
        elif getattr(model, "pooler", None) is None:
            model.pooler = Pooler(model.config.hidden_size)
    return model.float()  # checkpoints may be stored in half precision


@torch.no_grad()
def _teach(model: nn.Module) -> None:
    """Let a transformer with random weights know the polarity of the words of generated data: it stands in their
    embeddings along one direction, and its attention passes that direction on, so that the state of every piece, the first
    one's too, holds its own polarity and the mean over the transcript, as bench/data/synthetic.py has it in its features."""
    d = model.config.hidden_size
    direction = (1.0 - 2.0 * (torch.arange(d) % 2)) / d**0.5  # (d,) of length 1 and mean 0, which LayerNorm keeps
    words = model.embeddings.word_embeddings.weight  # (V, d)
    size = words.norm(dim=1).mean()  # of the rest of an embedding
    for i, polarity in encoders.word_polarity().items():
        words[i] += _POLARITY * size * polarity * direction
    for layer in model.encoder.layer:
        layer.attention.self.value.weight += torch.outer(direction, direction)
        layer.attention.output.dense.weight += torch.outer(direction, direction)


class TextEncoder(nn.Module):
    """A transformer encoder by name. `hidden_size` d; `is_test_only` marks random weights.

    Raises BenchError, which says how to get the encoder, if it is not on this machine.
    """

    def __init__(self, name: str, finetune: bool = True, pooler: bool = False) -> None:
        super().__init__()
        self.name = name
        self.finetune = finetune
        self.is_test_only = encoders.spec(name).test_only
        self.transformer = _build(name, pooler)
        self.pooler = self.transformer.pooler if pooler else None
        self.transformer.pooler = None
        self.hidden_size: int = self.transformer.config.hidden_size
        # transformers asks the device whether a two-dimensional mask masks anything; one of four it takes as it is
        library = inspect.getmodule(type(self.transformer))
        fused = getattr(self.transformer.config, "_attn_implementation", "") == "sdpa"
        self._takes_4d = fused and hasattr(library, "create_bidirectional_mask")
        self._segments = getattr(self.transformer.config, "type_vocab_size", 0) > 1
        self.requires_grad_(finetune)
        self.train(self.training)

    def train(self, mode: bool = True) -> "TextEncoder":
        return super().train(mode and self.finetune)

    def forward(self, tokens: Tensor) -> Hidden:
        """tokens [B, 3, L] int64: ids, attention mask, segment ids."""
        ids, mask, segments = tokens.unbind(1)  # (B, L) each
        extra = {"token_type_ids": segments} if self._segments else {}
        shown = mask[:, None, None].bool() if self._takes_4d else mask
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            states = self.transformer(
                input_ids=ids, attention_mask=shown, output_hidden_states=True, return_dict=True, **extra
            ).hidden_states  # layers + 1 of (B, L, d)
            pooled = self.pooler(states[-1]) if self.pooler is not None else None
        return Hidden(states[-1], states[-2], mask.float(), pooled, tuple(states))

    @torch.no_grad()
    def encode_all(self, texts: Sequence[str] | np.ndarray, max_len: int = 50, batch_size: int = 64) -> np.ndarray:
        """Features to cache, [N, L, d] float32, of texts or of word pieces [N, 3, L]; zero at padded positions."""
        ready = isinstance(texts, np.ndarray) and texts.ndim == 3
        tokens = texts if ready else encoders.tokenise(texts, self.name, max_len)
        device, training = next(self.parameters()).device, self.training
        out = np.zeros((len(tokens), tokens.shape[2], self.hidden_size), np.float32)
        self.eval()
        for start in range(0, len(tokens), batch_size):
            hidden = self(torch.as_tensor(tokens[start : start + batch_size].astype(np.int64), device=device))
            out[start : start + batch_size] = (hidden.last * hidden.mask[..., None]).cpu().numpy()
        self.train(training)
        return out


class TextBackbone(Backbone):
    """Base of the backbones that own a text encoder. A subclass calls `__init__(encoder, finetune, inputs)` before it
    builds its own modules and implements `encode_hidden`; the encoder's hidden states can so be injected.
    `test_only`: the encoder's weights are random.

    A subclass that takes nothing from padded positions says so by `reads_padding = False`. The loop then hands it word
    pieces up to the batch's longest transcript: no state that is read changes but by rounding, and dropout draws other
    numbers (measured: benchmarks/encoder_step.json). `with_pooler = True`: the encoder comes with its pooler."""

    needs_tokens = True
    reads_padding = True
    with_pooler = False

    def __init__(self, encoder: str, finetune: bool, inputs: Inputs) -> None:
        super().__init__()
        self.label_bound = inputs.label_bound
        self.text_encoder = None if encoder == encoders.NONE else TextEncoder(encoder, finetune, self.with_pooler)
        self.needs_tokens = self.text_encoder is not None
        self.text_width = self.text_encoder.hidden_size if self.text_encoder else inputs.text[1]  # d_t
        self.test_only = bool(self.text_encoder and self.text_encoder.is_test_only)

    @property
    def cut_keys(self) -> tuple[str, ...]:
        return () if self.reads_padding or self.text_encoder is None else ("text_bert", "context_text_bert")

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        """Latents from the text encoder's states and the batch's audio and vision."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> Encoded:
        if self.text_encoder is not None:
            return self.encode_hidden(self.text_encoder(batch["text_bert"]), batch)  # tokens (B, 3, L)
        features = batch["text"]  # (B, L, d_t)
        mask = features.ne(0).any(-1).to(features.dtype)  # frozen features are zero at padded positions
        return self.encode_hidden(Hidden(features, features, mask), batch)

    def own_named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters outside the text encoder."""
        return [(n, p) for n, p in self.named_parameters() if not n.startswith("text_encoder.")]

    def encoder_groups(self, spare: Sequence[str] = ()) -> list[Group]:
        """Groups "encoder" and, for names that contain one of `spare` (lower case), "encoder-no-decay"."""
        if self.text_encoder is None or not self.text_encoder.finetune:
            return []
        named = list(self.text_encoder.named_parameters())
        spared = {n for n, _ in named if any(part in n.lower() for part in spare)}
        groups = [Group("encoder", [p for n, p in named if n not in spared])]
        if spared:
            groups.append(Group("encoder-no-decay", [p for n, p in named if n in spared], decay=False))
        return groups

    def groups(self) -> list[Group]:
        return [*self.encoder_groups(), Group("main", [p for _, p in self.own_named_parameters()])]
