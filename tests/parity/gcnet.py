"""GCNet: regression and classification, without and with time attention, edges and relations included.

The release builds a GRU that nothing reads, and an attention that only the option reads."""

import torch
from torch.nn import functional as F

from bench.models import gcnet
from tests.parity.harness import Fixture, Reference


def place(prefix):
    def found(m):
        side = "backward" if m["reverse"] else "forward"
        return f"{prefix(m)}.layers.{m['layer']}.{side}_lstm.{m['part']}_l0"

    return found


_CELL = r"(?P<part>(?:weight|bias)_(?:ih|hh))_l(?P<layer>\d)(?P<reverse>_reverse)?"
_GRAPH = r"graph_net_(?P<graph>temporal|speaker)\."
RULES = [
    (r"lstm\." + _CELL, place(lambda m: "context")),
    (_GRAPH + r"grufusion\." + _CELL, place(lambda m: f"graphs.{m['graph']}.recurrent")),
    (_GRAPH + r"conv1\.(weight|root|bias)", r"graphs.\1.graph.\2"),
    (_GRAPH + r"conv2\.lin_rel\.(\w+)", r"graphs.\1.graph.neighbour.\2"),
    (_GRAPH + r"conv2\.lin_root\.weight", r"graphs.\1.graph.itself.weight"),
    (_GRAPH + r"matchatt\.transform\.(\w+)", r"graphs.\1.transform.\2"),
    (_GRAPH + r"linear\.(\w+)", r"graphs.\1.out.\2"),
    (r"smax_fc\.(\w+)", r"score.\1"),
    (r"linear_rec\.(\w+)", r"rebuild.\1"),
]
UNUSED = {r"gru\..*": "built and never read"}


def build(fixture: Fixture) -> gcnet.Model:
    """With the attention, which the main run leaves out."""
    c = fixture.config
    params = gcnet.Params(
        hidden=c["hidden"], window_past=c["window_past"], window_future=c["window_future"], time_attention=True,
        dropout=0.0, padding="read", reconstruction_mask="release",
    )
    return gcnet.Model(params, fixture.inputs("text"), c["n_classes"], c["n_speakers"])


def edges(there, adjacency):
    """(2, E) (source, target), sorted, and the relation of each (E,), nodes counted video by video."""
    number = there.flatten().cumsum(0).view_as(there) - 1
    b, r, i, j = adjacency.nonzero().unbind(1)
    source, target = number[b, j], number[b, i]
    order = (source * len(there.flatten()) + target).argsort()
    return torch.stack([source, target])[:, order], r[order]


def look(attention):
    def observe(model, batch, fixture):
        for network in model.graphs.values():
            network.attentive = attention
        there, keep = batch["umask"].bool(), batch["modality_mask"].bool()
        u = {m: batch[m] for m in gcnet.MODALITIES}
        speaker = batch["speaker"].long()
        found = model.network(u, keep, there, speaker)
        scores, label = model.score(found["fusion"]), batch["label"]
        if scores.shape[-1] == 1:
            error = (scores.squeeze(-1) - label).square()
        else:
            error = F.cross_entropy(scores.flatten(0, 1), label.flatten().long(), reduction="none").view_as(label)
        weight = there.to(scores.dtype) / there.sum()
        task, recon = (error * weight).sum(), model.reconstruction(found["fusion"], u, keep, weight)
        graphs = gcnet.adjacencies(there, speaker, model.params, model.speakers)
        (index, temporal), (again, between) = (edges(there, graphs[g]) for g in ("temporal", "speaker"))
        assert torch.equal(index, again)
        return {f"latent/{k}": v for k, v in found.items()} | {
            "latent/edge_index": index, "latent/edge_type_temporal": temporal, "latent/edge_type_speaker": between,
            "output/prediction": scores, "output/reconstruction": model.rebuild(found["fusion"]),
            "loss/task": task, "loss/recon": recon, "loss/total": task + recon,
        }

    return observe


REFERENCES = {n: Reference(build, RULES, look(False), {"attn": look(True)}, UNUSED) for n in ("gcnet", "gcnet_cls")}
