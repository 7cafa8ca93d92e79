"""`bench new`: a working component to start from, and a test of its contract beside it."""

import keyword
import re
from pathlib import Path

from bench.errors import BenchError

KINDS = {"mixer": "mixers", "backbone": "models", "dataset": "datasets", "experiment": "experiments"}

_MIXER = '''"""@TITLE@: say here what it does, in which equations, and what it leaves open."""

from dataclasses import dataclass

from bench.mixers.base import Mixed, Mixer
from bench.mixers.combine import interpolate
from bench.mixers.sampling import beta, permutation, precision

VERSION = 1  # raise it when numbers change
SPACE = {  # what `bench tune` may change, from the published setting on (experiments/spaces/README.md)
    "source": "mine",
    "mixer.alpha": {"low": 0.2, "high": 4.0, "log": True},
    "mixer.p_mix": {"choices": [0.25, 0.5, 0.75, 1.0]},
}


@dataclass(frozen=True)
class Params:
    alpha: float = 1.0  # of Beta(alpha, alpha)
    p_mix: float = 1.0  # share of the steps that mix
    start_epoch: int = 1  # first epoch that mixes


class Mix(Mixer):
    def mix(self, latents, targets, generator):
        first, second = (permutation(len(targets), generator) for _ in range(2))  # (B,)
        ratio = beta(self.params.alpha, len(targets), generator, precision(targets))  # (B,)
        mixed = {m: interpolate(x, first, second, ratio) for m, x in latents.items()}
        return Mixed(mixed, interpolate(targets, first, second, ratio))
'''
_BACKBONE = '''"""@TITLE@: say here what it is, whose, and what its paper leaves open."""

from dataclasses import dataclass

import torch
from torch import nn

from bench.models.base import Backbone, Encoded, Output

VERSION = 1  # raise it when numbers change
SPACE = {  # what `bench tune` may change, from the published setting on (experiments/spaces/README.md)
    "source": "mine",
    "train.rates": {"factor": 4.0},
    "backbone.width": {"choices": [16, 32, 64]},
    "backbone.dropout": {"low": 0.0, "high": 0.5},
}


@dataclass(frozen=True)
class Params:
    width: int = 32
    dropout: float = 0.1


class Model(Backbone):
    def __init__(self, params, inputs):
        super().__init__()
        self.label_bound = inputs.label_bound
        widths = {"text": inputs.text[1], "audio": inputs.audio[1], "vision": inputs.vision[1]}
        self.nets = nn.ModuleDict({m: nn.Linear(d, params.width) for m, d in widths.items()})
        self.drop = nn.Dropout(params.dropout)
        self.head = nn.Linear(len(widths) * params.width, 1)
        self.latent_dims = {m: (params.width,) for m in widths}

    def encode(self, batch):
        return Encoded({m: net(batch[m].mean(1)).relu() for m, net in self.nets.items()}, {})  # (B, width) each

    def fuse(self, latents):
        x = self.drop(torch.cat(list(latents.values()), 1))  # (B, 3 width)
        return Output(self.head(x).squeeze(-1), {})  # (B,)
'''
_SETTINGS = '''source = "mine: not tuned"
features = "unaligned"
[mosi.params]
width = 32
[mosi.train]
batch_size = 32
lr = 1e-3
'''
_DATASET = '''"""@TITLE@: where it comes from, how many clips, what its labels are."""

from bench.data.spec import DatasetSpec, FeatureFile, Recipe, msena_names

VERSION = 1

SPEC = DatasetSpec(
    name="@NAME@",
    title="@TITLE@",
    metrics="msena",
    label_bound=3.0,
    sizes={"train": 240, "valid": 80, "test": 160},
    features={"unaligned": FeatureFile(msena_names("@NAME@", "unaligned_50.pkl"), text=(50, 768), audio=(100, 5), vision=(100, 20))},
    recipe=Recipe(label_counts=(1, 2, 3, 2, 3, 2, 1), text_noise=0.3, strength=(0.6, 0.6)),
    sizes_published=False,
)
'''
_EXPERIMENT = '''"""@TITLE@: the tables and figures of a paper of yours."""

from bench.matrix import Experiment, Row
from bench.experiments.common import columns, config

METHODS = {"plain": "none", "Manifold Mix": "manifold", "MS-Mix": "msmix"}


def table1():
    """@TITLE@ Table 1: three methods with LMF on MOSI.

    Claim: what you expect.
    Expected: a number.
    Cost: 15 runs; about 2 GPU-minutes.
    Command: bench run @NAME@-t1 --plugins DIR --suite real --data DIR
    """
    rows = tuple(
        Row(backbone="LMF", method=m, block="LMF", baseline={"plain": "plain", "MS-Mix": "proposed"}.get(m, ""),
            cells={"MOSI": config("@NAME@", "lmf", "mosi", mixer)})
        for m, mixer in METHODS.items()
    )
    return Experiment(
        id="@NAME@-t1", paper="@NAME@", title="@TITLE@ on MOSI", kind="table", rows=rows, seeds=5, primary="avg",
        family="MS-Mix against each other row, on Avg.",
        columns=columns("msena", "MOSI", {"non0_acc2": "Acc-2 (%)", "mae": "MAE", "avg": "Avg. (%)"}),
    )


EXPERIMENTS = (table1,)
'''
_TEST = '''"""The contract of @NAME@: python -m pytest @FILE@"""

from pathlib import Path

import pytest

from bench import contract, plugins

plugins.use(Path(__file__).parents[1])


@pytest.mark.parametrize("finding", contract.check("@KIND@", "@NAME@"), ids=lambda f: f.check)
def test_contract(finding):
    assert not finding.problem, finding.problem
'''
_TEXTS = {"mixer": _MIXER, "backbone": _BACKBONE, "dataset": _DATASET, "experiment": _EXPERIMENT}


def write(kind: str, name: str, folder: str | Path) -> list[Path]:
    """Write a component into a plug-in folder; returns the files. Raises BenchError where the name will not do or a file
    is there already."""
    from bench import registry

    if kind not in KINDS:
        raise BenchError(f"bench new takes {', '.join(KINDS)}, got '{kind}'")
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", name) or keyword.iskeyword(name):
        raise BenchError(f"'{name}' will not do as a name: small letters, digits and _, a letter first")
    if kind != "experiment" and name in registry.names(KINDS[kind]):
        raise BenchError(f"there is a {kind} '{name}' already; choose another name")
    root = Path(folder)
    made = {root / KINDS[kind] / f"{name}.py": _TEXTS[kind]}
    if kind == "backbone":
        made[root / "hyperparameters" / f"{name}.toml"] = _SETTINGS
    if kind in ("mixer", "backbone"):
        made[root / "tests" / f"test_{name}.py"] = _TEST
    there = next((p for p in made if p.exists()), None)
    if there is not None:
        raise BenchError(f"{there} is there already; nothing was written")
    words = {"@NAME@": name, "@TITLE@": name.replace("_", " ").title(), "@KIND@": KINDS[kind], "@FILE@": f"tests/test_{name}.py"}
    for path, text in made.items():
        for word, value in words.items():
            text = text.replace(word, value)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as e:
            raise BenchError(f"cannot write {path}: {str(e.strerror).lower()}; name another folder with --in") from None
    return list(made)
