"""MFN and Graph-MFN against M-SENA's; of the latter also the node networks that are in none of its optimisers."""

from bench.models import graph_mfn, mfn
from tests.parity.harness import Fixture, Reference

LETTER = {"l": "text", "a": "audio", "v": "vision"}
SLOT = {"1": "first", "2": "second"}
INNER = {"att1": "attention", "att2": "candidate", "gamma1": "keep", "gamma2": "write", "out": "head"}
NODE = {"0_1": "ta", "0_2": "tv", "1_2": "av", "0_1_2": "tav"}


def _sizes(fixture: Fixture, names: dict[str, str]) -> dict:
    c = fixture.config
    sizes = {ours: c[f"{theirs}Config"]["shapes"] for ours, theirs in names.items()}
    rates = {f"{ours}_dropout": 0.0 for ours in names}
    hidden = dict(zip(("text_hidden", "audio_hidden", "vision_hidden"), c["hidden_dims"], strict=True))
    return {**sizes, **rates, **hidden, "memory": c["memsize"]}


def build_mfn(fixture: Fixture) -> mfn.Model:
    assert fixture.config["windowsize"] == 2
    names = {"attention": "NN1", "candidate": "NN2", "keep": "gamma1", "write": "gamma2", "output": "out"}
    return mfn.Model(mfn.Params(**_sizes(fixture, names)), fixture.inputs("text"))


def build_graph(fixture: Fixture) -> graph_mfn.Model:
    names = {"candidate": "NN", "keep": "gamma1", "write": "gamma2", "output": "out"}
    params = graph_mfn.Params(**_sizes(fixture, names), node=fixture.config["inner_node_dim"], train_nodes=True)
    return graph_mfn.Model(params, fixture.inputs("text"))


def inner(prefix: str):
    def target(m) -> str:
        return f"{'' if m[1] == 'out' else prefix}{INNER[m[1]]}.{SLOT[m[2]]}.{m[3]}"

    return r"(att1|att2|gamma1|gamma2|out)_fc(\d)\.(\w+)", target


GRAPH = [
    (r"lstm_([lav])\.(\w+)", lambda m: f"lstm.{LETTER[m[1]]}.{m[2]}_l0"),
    (r"([lav])_transform\.(\w+)", lambda m: f"singleton.{LETTER[m[1]]}.{m[2]}"),
    (r"graph_mfn\.efficacy_model\.(\d)\.(?:0\.)?(weight|bias)", r"graph.efficacies.\1.\2"),
    (r"graph_mfn\.t_network\.(\d)\.(?:0\.)?(weight|bias)", r"graph.nodes.top.\1.\2"),
    (r"graph_mfn\.networks\.([\d_]+)\.(\d)\.(?:0\.)?(weight|bias)", lambda m: f"graph.nodes.{NODE[m[1]]}.{m[2]}.{m[3]}"),
    inner(""),
]
REFERENCES = {
    "mfn": Reference(build_mfn, [
        (r"lstm_([lav])\.(\w+)", lambda m: f"memory_fusion.lstm.{LETTER[m[1]]}.{m[2]}_l0"), inner("memory_fusion."),
    ]),
    "graph_mfn": Reference(build_graph, GRAPH),
}
