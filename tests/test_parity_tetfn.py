"""Parity of TETFN with its published implementation; its label generation is Self-MM's and is tested there."""

import torch
from torch.nn import functional as F

from bench.models import tetfn
from bench.models.parts.label_memory import FUSION
from tests.parity_maps_finetuned import SELF_MM_RULES, vision
from tests.parity_systems import DTYPES, Case, fixtures, tower_rules

LETTER = {"text": "l", "audio": "a", "vision": "v"}
RULES = [
    (r"(audio|video)_model\.rnn\.(\w+)", lambda m: f"{vision(m[1])}_encoder.lstm.{m[2]}"),
    (r"(audio|video)_model\.conv\.(\w+)", lambda m: f"{vision(m[1])}_encoder.convolution.{m[2]}"),
    (r"proj_l\.(\w+)", r"text_convolution.\1"),
    *SELF_MM_RULES[2:],
    *(r for i, (t, s) in enumerate(tetfn.PLAIN) for r in tower_rules(f"trans_{LETTER[t]}_with_{LETTER[s]}", "cross", i)),
    *(r for i, m in enumerate(tetfn.MODALITIES) for r in tower_rules(f"trans_{LETTER[m]}_mem", "memory_towers", i)),
    *(
        r for i, pair in enumerate(("a_with_v", "v_with_a")) for part in ("lower", "upper")
        for r in tower_rules(rf"trans_{pair}\.{part}_mha", part, i)
    ),
]


def built(case):
    c = case.config
    heads = ("fusion", "text", "audio", "video")
    params = tetfn.Params(
        encoder="none", width=c["dst_feature_dims"], heads=c["nheads"], audio_hidden=c["a_lstm_hidden_size"],
        vision_hidden=c["v_lstm_hidden_size"], text_kernel=c["conv1d_kernel_size_l"],
        audio_kernel=c["conv1d_kernel_size_a"], bound=c["H"], exclude_zero=c["excludeZero"],
        attention_dropout_text=0.0, attention_dropout_vision=0.0, residual_dropout=0.0,
        **{f"post_{vision(m)}_dim": c[f"post_{m}_dim"] for m in heads},
    )
    inputs = case.inputs(train_size=len(case["label"]), aligned=c["need_data_aligned"])
    model = tetfn.Model(params, inputs).to(case.dtype)
    return model, case.load(model, RULES)


@DTYPES
@fixtures("tetfn")
def test_parity_tetfn(path, dtype):
    case = Case(path, dtype, softmax32=True)
    model, names = built(case)
    model.eval()
    batch, hidden = case.batch(), case.hidden()
    model.memory.fill(batch["label"])
    for m in tetfn.MODALITIES:
        model.memory.get("label", m).copy_(batch[f"label_{m}"])
    encoded = model.encode_hidden(hidden, batch)
    output = model.fuse(encoded.latents)
    aux = model.aux_losses(batch, encoded, output)
    task = F.l1_loss(output.prediction, batch["label"])
    total = task + sum(aux.values())
    sequences = model.project(hidden, batch)
    found = {f"latent/{m}": x for m, x in encoded.latents.items()}
    found |= {f"latent/seq_{m}": x for m, x in sequences.items()}
    found |= {f"latent/seq_trans_{LETTER[t]}_with_{LETTER[s]}": x for (t, s), x in model.cross_modal(sequences).items()}
    for m in tetfn.MODALITIES:
        found |= {f"latent/pooled_{m}": encoded.side[f"pooled_{m}"], f"latent/post_{m}": encoded.side[f"feature_{m}"]}
        found |= {f"output/prediction_{m}": encoded.side[f"prediction_{m}"], f"loss/task_{m[0].upper()}": aux[f"uni_{m}"]}
    found |= {
        "latent/fusion": torch.cat(list(encoded.latents.values()), 1), "latent/post_fusion": output.features[FUSION],
        "output/prediction": output.prediction, "loss/task": task, "loss/task_M": task, "loss/total": total,
    }
    case.check(found)
    total.backward()
    case.gradients(names)
