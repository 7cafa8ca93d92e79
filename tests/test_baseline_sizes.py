"""Parameter totals of the systems in their published configurations, text encoder excluded."""

import pytest

from bench import registry
from bench.models.base import Inputs
from bench.train.protocol import from_params
from experiments.common import settings

SHAPES = {  # text, audio, vision
    "mosi": ((50, 768), (50, 5), (50, 20)),
    "mosei": ((50, 768), (50, 74), (50, 35)),
    "sims": ((39, 768), (400, 33), (55, 709)),
}
PUBLISHED = {  # counted on the reference implementations
    "tetfn": {"mosi": 1_254_224, "mosei": 1_257_360, "sims": 1_529_968},
}


@pytest.mark.parametrize(("name", "dataset"), [(n, d) for n, found in PUBLISHED.items() for d in found])
def test_parameter_totals_are_the_references(name, dataset):
    module = registry.load("models", name)
    params = from_params(module.Params, settings("", name, dataset)["params"] | {"encoder": "none"}, name)
    text, audio, vision = SHAPES[dataset]
    model = module.Model(params, Inputs(text=text, audio=audio, vision=vision, aligned=dataset != "sims"))
    unused = getattr(module, "UNUSED_PARAMETERS", {}).get(dataset, 0)
    assert sum(p.numel() for p in model.parameters()) + unused == PUBLISHED[name][dataset]
