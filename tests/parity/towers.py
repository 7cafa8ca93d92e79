"""Rules of the encoders of the MulT family, which live here in bench.models.parts.towers.Towers stacks."""

MARKERS = {r".*\.(version|embed_positions\._float_tensor)": "format markers, no parameters"}
_OWN = {"self_attn.in_proj_": "qkv_", "self_attn.out_proj.": "out_", "fc1.": "fc1_", "fc2.": "fc2_"}
_PARTS = "|".join(k.replace(".", r"\.") for k in _OWN)


def tower_rules(theirs: str, stack: str, tower: int) -> list:
    """One encoder `theirs` (a regular expression without groups), here tower `tower` of `stack`."""
    return [
        (rf"{theirs}\.layers\.(\d+)\.({_PARTS})(\w+)", lambda m: (f"{stack}.{_OWN[m[2]]}{m[3]}", (tower, int(m[1])))),
        (
            theirs + r"\.layers\.(\d+)\.layer_norms\.(\d)\.(\w+)",
            lambda m: (f"{stack}.norm_{m[3]}", (tower, int(m[1]), int(m[2]))),
        ),
        (theirs + r"\.layer_norm\.(\w+)", lambda m: (f"{stack}.end_{m[1]}", (tower,))),
    ]
