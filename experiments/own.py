"""A table of the user's own data set (`--dataset-from DIR`): the backbones and methods of MS-Mix's Table 1, with the
hyperparameters of the nearest published data set. There is nothing to compare with, and nothing is claimed."""

from bench.data.own import register
from bench.experiments.common import columns, config, settings
from bench.experiments.msmix import BACKBONES, METHODS
from bench.matrix import Experiment, Row
from bench.metrics import METRICS
from bench.registry import names

_SHOWN = {
    "msena": ("has0_acc2", "non0_acc2", "has0_f1", "non0_f1", "acc5", "acc7", "mae", "corr"),
    "sims": ("acc2", "acc3", "acc5", "f1", "mae", "corr"), "binary": ("accuracy", "f1"),
}  # fmt: skip


def table() -> Experiment:
    """The user's own data set: six backbones x six methods.

    Claim: none.
    Expected: unknown.
    Cost: 180 runs.
    Command: bench run own-t1 --suite real --dataset-from DIR
    """
    own = register()
    assert own is not None
    spec = own.spec

    def _kind(backbone: str) -> str:
        """The kind of features that a backbone reads, if the file is of it."""
        wanted = settings("msmix", backbone, spec.name)["features"] if backbone in names("models") else ""
        return wanted if wanted in spec.features else next(iter(spec.features))

    labels = {k: METRICS[spec.metrics][k].label + (" (%)" if METRICS[spec.metrics][k].percent else "") for k in _SHOWN[spec.metrics]}
    rows = [
        Row(backbone=shown, method=method, block=shown, baseline="plain" if m == "none" else "",
            cells={spec.title: config("msmix", b, spec.name, m, features=_kind(b))})
        for shown, b in BACKBONES.items() for method, m in METHODS.items()
    ]  # fmt: skip
    return Experiment(
        id="own-t1", paper="own", title=f"Results on {spec.title}", kind="table",
        columns=columns(spec.metrics, spec.title, labels), rows=tuple(rows), seeds=5,
        notes=(f"Hyperparameters are those of {spec.nearest}, the nearest published data set.", *own.inferred),
    )


EXPERIMENTS = (table,) if register() is not None else ()
