"""Rules of bench.models.parts.encoder.Encoder against encoders of the MulT family."""

_LINEAR = {"self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out.", "fc1.": "up.", "fc2.": "down."}
_PARTS = "|".join(k.replace(".", r"\.") for k in _LINEAR)
_NORMS = ("norm_attention", "norm_feed_forward")


def encoder_rules(theirs: str, ours) -> list:
    """`theirs` may have groups; `ours` is a function of the match that gives our encoder's name."""
    layer = theirs + r"\.layers\.(?P<layer>\d+)\."
    return [
        (
            rf"{layer}(?P<part>{_PARTS})(?P<end>\w+)",
            lambda m: f"{ours(m)}.layers.{m['layer']}.{_LINEAR[m['part']]}{m['end']}",
        ),
        (
            layer + r"layer_norms\.(?P<which>\d)\.(?P<end>\w+)",
            lambda m: f"{ours(m)}.layers.{m['layer']}.{_NORMS[int(m['which'])]}.{m['end']}",
        ),
        (theirs + r"\.layer_norm\.(?P<end>\w+)", lambda m: f"{ours(m)}.norm.{m['end']}"),
    ]
