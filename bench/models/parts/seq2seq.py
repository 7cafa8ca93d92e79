"""Encoder-decoders by name (bench/encoders.py), from local files, for systems that put modules inside one.

    t5      T5ForConditionalGeneration, with its head over the vocabulary
    bart    BartModel: states of encoder and decoder

`tiny` is one of two layers and width 64 with random weights, for tests alone. Padding stands on the right.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench import encoders
from bench.errors import BenchError

FAMILIES = {"t5": "T5", "bart": "BART"}
_TINY_VOCABULARY = 21_100  # above every id of the test encoder's words
_TINY_POSITIONS = 512


def build(model: str, name: str, family: str) -> nn.Module:
    """The encoder-decoder of a name, which must be of a family. The global random stream is left as it was. Raises
    BenchError, which says how to get it, where it is not on this machine, and where it is of another family."""
    if name == encoders.NONE:
        raise BenchError(f"{model}: its modules sit inside {FAMILIES[family]}, so encoder cannot be 'none'")
    with torch.random.fork_rng(devices=[]):
        if encoders.spec(name).test_only:
            encoders.find(name)
            torch.default_generator.manual_seed(0)  # the CPU's alone; fork_rng puts it back
            return _tiny(family).float()
        folder = encoders.find(name)
        from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

        with encoders.loading(name):
            found = AutoConfig.from_pretrained(str(folder), local_files_only=True).model_type
        if found != family:
            raise BenchError(f"{model}: needs a {FAMILIES[family]}, and encoder '{name}' is of type '{found}'")
        loader = AutoModelForSeq2SeqLM if family == "t5" else AutoModel
        with encoders.loading(name):
            return loader.from_pretrained(str(folder), local_files_only=True).float()


def _tiny(family: str) -> nn.Module:
    if family == "t5":
        from transformers import T5Config, T5ForConditionalGeneration

        sizes = dict(d_model=64, d_kv=32, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=2)
        return T5ForConditionalGeneration(T5Config(vocab_size=_TINY_VOCABULARY, decoder_start_token_id=0, **sizes))
    from transformers import BartConfig, BartModel

    sides = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 128))}
    ids = dict(pad_token_id=0, bos_token_id=101, eos_token_id=102, decoder_start_token_id=102)  # the test encoder's
    return BartModel(BartConfig(
        vocab_size=_TINY_VOCABULARY, d_model=64, max_position_embeddings=_TINY_POSITIONS, **sides, **ids,
    ))


def pieces(name: str, texts: Sequence[str], end: Sequence[int] = ()) -> list[list[int]]:
    """Word-piece ids of texts without special tokens, each followed by `end`."""
    if encoders.spec(name).test_only:
        return [[*map(encoders.hashed_word, t.split()), *end] for t in texts]
    return [[*ids, *end] for ids in encoders.tokenizer(name)(list(texts), add_special_tokens=False)["input_ids"]]


def shown(mask: Tensor) -> Tensor:
    """Attention mask [B, L] as transformers takes it without asking the device whether it masks anything: [B, 1, 1, L]."""
    return mask[:, None, None].bool()


class Inside(nn.Module):
    """A layer of a transformer with a module of ours at its output, which is given the layer's input and output [B, L, d],
    or, with `before`, at its input. Beside them the module is given what `context` holds under `keys`, by name: the model
    puts it there for each batch.

    The module stays with the model that made it: it is no submodule here."""

    def __init__(self, layer: nn.Module, module: nn.Module, context: dict[str, Tensor], keys: Sequence[str], before: bool) -> None:
        super().__init__()
        self.layer, self.before = layer, before
        self._mine = (module, context, tuple(keys))

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        module, context, keys = self._mine
        given = {k: context[k] for k in keys}
        if self.before:
            return self.layer(module(states, **given), *args, **kwargs)
        return module(states, self.layer(states, *args, **kwargs), **given)
