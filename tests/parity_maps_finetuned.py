"""Names of the published implementations' parameters -> ours, for MISA, Self-MM, ALMT and GLoMo."""

import re

import pytest
import torch
from torch import Tensor, nn

LETTER = {"t": "text", "l": "text", "a": "audio", "v": "vision"}


class Names:
    """Reference parameter names -> a tensor of ours, or one slice of a stacked one."""

    def __init__(self, model: nn.Module, rules: list[tuple[str, object]]) -> None:
        self.own = dict(model.named_parameters())
        self.rules = [(re.compile(pattern), target) for pattern, target in rules]
        self.unused = tuple(model.unused_reference_parameters())

    def __call__(self, reference: str) -> tuple[str, tuple] | None:
        """(our name, index), or None where the model says that it has no counterpart."""
        if reference.startswith(self.unused):
            return None
        for pattern, target in self.rules:
            if match := pattern.fullmatch(reference):
                found = target(match) if callable(target) else match.expand(target)
                return found if isinstance(found, tuple) or found is None else (found, ())
        raise AssertionError(f"no counterpart of {reference}")

    def load(self, arrays: dict[str, Tensor]) -> None:
        """Copy every reference parameter; every parameter of ours must be filled completely."""
        filled = dict.fromkeys(self.own, 0)
        for key, value in arrays.items():
            if key.startswith("param/") and (place := self(key[6:])):
                name, index = place
                with torch.no_grad():
                    assert self.own[name][index].shape == value.shape, key
                    self.own[name][index] = value
                filled[name] += value.numel()
        assert filled == {name: p.numel() for name, p in self.own.items()}

    def check_gradients(self, arrays: dict[str, Tensor], prefix: str, rtol: float, atol: float) -> None:
        checked = 0
        for key, expected in arrays.items():
            if key.startswith(prefix) and (place := self(key[len(prefix) :])):
                name, index = place
                grad = self.own[name].grad
                norm = 0.0 if grad is None else float(grad[index].norm())
                assert norm == pytest.approx(float(expected), rel=rtol, abs=atol), key
                checked += 1
        assert checked >= len(self.own)


def vision(name: str) -> str:
    return "vision" if name == "video" else name


_LAYER = ("first", "second", "score")
MISA_RULES = [
    (
        r"([va])rnn([12])\.(\w+_l0)(_reverse)?",
        lambda m: f"{LETTER[m[1]]}_encoder.{_LAYER[int(m[2]) - 1]}.{'backward' if m[4] else 'forward'}_lstm.{m[3]}",
    ),
    (r"([va])layer_norm\.(\w+)", lambda m: f"{LETTER[m[1]]}_encoder.norm.{m[2]}"),
    (r"project_([tva])\.project_\1\.(\w+)", lambda m: f"project.{LETTER[m[1]]}.0.{m[2]}"),
    (r"project_([tva])\.project_\1_layer_norm\.(\w+)", lambda m: f"project.{LETTER[m[1]]}.2.{m[2]}"),
    (r"private_([tva])\.private_\1_\d\.(\w+)", lambda m: f"private.{LETTER[m[1]]}.{m[2]}"),
    (r"recon_([tva])\.recon_\1_\d\.(\w+)", lambda m: f"reconstruct.{LETTER[m[1]]}.{m[2]}"),
    (r"shared\.shared_1\.(\w+)", r"shared.\1"),
    (r"fusion\.fusion_layer_([13])\.(\w+)", lambda m: f"head.{int(m[1]) // 3 * 3}.{m[2]}"),
    (r"transformer_encoder\.layers\.0\.(.+)", r"attention.\1"),
]

SELF_MM_RULES = [
    (r"(audio|video)_model\.rnn\.(\w+)", lambda m: f"{vision(m[1])}_encoder.lstm.{m[2]}"),
    (r"(audio|video)_model\.linear_1\.(\w+)", lambda m: f"{vision(m[1])}_encoder.out.{m[2]}"),
    (r"post_fusion_layer_(\d)\.(\w+)", lambda m: f"fusion.{_LAYER[int(m[1]) - 1]}.{m[2]}"),
    (r"post_(\w+?)_layer_(\d)\.(\w+)", lambda m: f"heads.{vision(m[1])}.{_LAYER[int(m[2]) - 1]}.{m[3]}"),
]


def almt_layer(prefix: str, ours: str) -> list[tuple[str, object]]:
    """Attention and feed-forward of one stack of the reference -> one Layer per depth."""
    return [
        (prefix + r"\.(\d+)\.0\.(norm_[qkv]\.\w+)", rf"{ours}.\1.\2"),
        (prefix + r"\.(\d+)\.0\.fn\.(to_[qkv]\.weight)", rf"{ours}.\1.\2"),
        (prefix + r"\.(\d+)\.0\.fn\.to_out\.0\.(\w+)", rf"{ours}.\1.to_out.\2"),
        (prefix + r"\.(\d+)\.1\.norm\.(\w+)", rf"{ours}.\1.norm.\2"),
        (prefix + r"\.(\d+)\.1\.fn\.net\.0\.(\w+)", rf"{ours}.\1.feed_forward.0.\2"),
        (prefix + r"\.(\d+)\.1\.fn\.net\.3\.(\w+)", rf"{ours}.\1.feed_forward.2.\2"),
    ]


def almt_rules() -> list[tuple[str, object]]:
    norms = ("text", "audio", "vision", "hyper")
    rules = [
        (r"h_hyper", "hyper"),
        (r"regression_layer\.0\.(\w+)", r"head.\1"),
        (r"l_encoder\.pos_embedding", "language_position"),
        (r"fusion_layer\.pos_embedding_s", "fusion.position_source"),
        (r"fusion_layer\.pos_embedding_t", "fusion.position_target"),
        (r"fusion_layer\.extra_token", "fusion.token"),
        (
            r"h_hyper_layer\.layers\.(\d+)\.0\.norm(\d)\.(\w+)",
            lambda m: f"hyper_layers.{m[1]}.norm_{norms[int(m[2]) - 1]}.{m[3]}",
        ),
        (r"h_hyper_layer\.layers\.(\d+)\.0\.fn\.to_q\.weight", r"hyper_layers.\1.to_q.weight"),
        (
            r"h_hyper_layer\.layers\.(\d+)\.0\.fn\.to_([kv])_t([av])\.weight",
            lambda m: f"hyper_layers.{m[1]}.to_{m[2]}_{LETTER[m[3]]}.weight",
        ),
        (r"h_hyper_layer\.layers\.(\d+)\.0\.fn\.to_out\.0\.(\w+)", r"hyper_layers.\1.to_out.\2"),
    ]
    for letter in "lav":
        m = LETTER[letter]
        rules += [
            (rf"proj_{letter}\.0\.(\w+)", rf"embed.{m}.project.\1"),
            (rf"proj_{letter}\.1\.pos_embedding", f"embed.{m}.position"),
            (rf"proj_{letter}\.1\.extra_token", f"embed.{m}.token"),
            *almt_layer(rf"proj_{letter}\.1\.encoder\.layers", f"embed.{m}.layers"),
        ]
    rules += almt_layer(r"l_encoder\.encoder\.layers", "language")
    return rules + almt_layer(r"fusion_layer\.CrossTransformerEncoder\.layers", "fusion.layers")


ALMT_RULES = almt_rules()

_TOWER = {"self_attn.in_proj_": "qkv_", "self_attn.out_proj.": "out_", "fc1.": "fc1_", "fc2.": "fc2_"}
GLOMO_RULES = [
    (r"bert\.linear1\.(\w+)", r"text_coarse.\1"),
    (r"bert\.proj_l\.weight", "text_fine.weight"),
    (r"(audio|video)_network\.projs\.weight", lambda m: f"sequences.{vision(m[1])}.convolution.weight"),
    (
        r"(audio|video)_network\.encoder\.layers\.(\d+)\.(self_attn\.in_proj_|self_attn\.out_proj\.|fc1\.|fc2\.)(\w+)",
        lambda m: (f"sequences.{vision(m[1])}.encoder.{_TOWER[m[3]]}{m[4]}", (0, int(m[2]))),
    ),
    (
        r"(audio|video)_network\.encoder\.layers\.(\d+)\.layer_norms\.(\d)\.(\w+)",
        lambda m: (f"sequences.{vision(m[1])}.encoder.norm_{m[4]}", (0, int(m[2]), int(m[3]))),
    ),
    (
        r"(audio|video)_network\.encoder\.layer_norm\.(\w+)",
        lambda m: (f"sequences.{vision(m[1])}.encoder.end_{m[2]}", (0,)),
    ),
    (r"moe_([tav])\.(w_\w+)", lambda m: f"mixtures.{LETTER[m[1]]}.{m[2]}"),
    (
        r"moe_([tav])\.experts\.(\d+)\.fc([12])\.(\w+)",
        lambda m: f"mixtures.{LETTER[m[1]]}.experts.{m[2]}.{2 * int(m[3]) - 2}.{m[4]}",
    ),
    (r"fc_([tav])s\.(\w+)", lambda m: f"join_each.{LETTER[m[1]]}.{m[2]}"),
    (r"fc_all\.(\w+)", r"join.\1"),
    (r"attn_cs\.attention_mlp\.attention_mlp\.(\w+)", r"pool_coarse.mix.\1"),
    (r"attn_fs\.attention_mlp\.attention_mlp\.(\w+)", r"pool_fine.mix.\1"),
    (r"attn_cs\.fc_att\.(\w+)", r"pool_coarse.score.\1"),
    (r"attn_fs\.fc_att\.(\w+)", r"pool_fine.score.\1"),
    (r"classifier\.(\w+)", r"head.\1"),
    (r"transformer_encoder\.layers\.(\d)\.(.+)", r"fusion.\1.\2"),
]
