"""Parameter totals of the systems in their published configurations, text encoder excluded."""

import pytest

from bench import registry
from bench.experiments.common import settings
from bench.models.base import Inputs
from bench.train.protocol import from_params

SHAPES = {  # text, audio, vision
    "mosi": ((50, 768), (50, 5), (50, 20)),
    "mosei": ((50, 768), (50, 74), (50, 35)),
    "sims": ((39, 768), (400, 33), (55, 709)),
}
PUBLISHED = {  # counted on the reference implementations
    "lf_dnn": {"mosi": 597_171, "mosei": 572_283, "sims": 635_821},
    "mfn": {"mosi": 2_172_657, "mosei": 1_276_865, "sims": 601_505},
    "graph_mfn": {"mosi": 2_110_624 + 208_656, "mosei": 675_792 + 133_712, "sims": 2_724_860 + 253_712},
    "ef_lstm": {"mosi": 885_605, "mosei": 1_754_725, "sims": 215_695},
    "mmim": {"mosi": 281_673, "mosei": 292_425, "sims": 373_449},
    "mfm": {"mosi": 1_416_123, "mosei": 5_996_541, "sims": 3_478_888},
    "mctn": {"mosi": 763_778},
    "tetfn": {"mosi": 1_254_224, "mosei": 1_257_360, "sims": 1_529_968},
}
UNUSED = {  # layers that a reference builds and never uses: (in, hidden), then (hidden, 1)
    "mfm": {"mosi": (352, 128), "mosei": (608, 256), "sims": (272, 128)},
}


def two_layers(width: int, hidden: int) -> int:
    return (width + 1) * hidden + hidden + 1


@pytest.mark.parametrize(("name", "dataset"), [(n, d) for n, found in PUBLISHED.items() for d in found])
def test_parameter_totals_are_the_references(name, dataset):
    module = registry.load("models", name)
    given = settings("", name, dataset)["params"]
    params = from_params(module.Params, given | ({"encoder": "none"} if "encoder" in given else {}), name)
    text, audio, vision = SHAPES[dataset]
    model = module.Model(params, Inputs(text=text, audio=audio, vision=vision, aligned=dataset != "sims"))
    unused = two_layers(*UNUSED[name][dataset]) if name in UNUSED else 0
    assert sum(p.numel() for p in model.parameters()) + unused == PUBLISHED[name][dataset]
