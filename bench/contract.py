"""The contract of backbones and mixers, as checks that run on any of them: `bench check NAME`.

Everything runs on generated data on the CPU in seconds. A check returns "" or what is wrong, in one line.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.errors import BenchError
from bench.job import run
from bench.matrix import Config, Job
from bench.spaces import changed, settings, space
from bench.store import Store
from bench.train.capturable import host_reads, replay
from bench.train.protocol import Protocol, from_params
from bench.tryout import SEED, built, cell, one_step, stepper, updates_of

_ROWS = 12
_DIMS = {"text": (8,), "audio": (4,), "vision": (6,)}  # latents that a mixer is tried on


@dataclass(frozen=True)
class Finding:
    check: str
    problem: str  # "" where all is well


def check(kind: str, name: str) -> Iterator[Finding]:
    """Findings about a component, one after the other; `kind` is "models" or "mixers"."""
    checks = _MODEL if kind == "models" else _MIXER
    for title, one in checks.items():
        try:
            yield Finding(title, one(name))
        except (Exception, SystemExit) as e:  # noqa: BLE001 - a component of anybody's may raise anything, or exit
            first = str(e).splitlines()[0] if str(e) else ""
            yield Finding(title, first if isinstance(e, BenchError) else f"{type(e).__name__}: {first}")


def kind_of(name: str) -> str:
    """The kind of a component. Raises BenchError where there is none of the name."""
    for kind in ("models", "mixers"):
        if name in registry.names(kind):
            return kind
    raise BenchError(f"no backbone or mixer '{name}'; `bench list --backbones` and `--mixers` show them, --plugins names a folder of yours")


# --- mixers ----------------------------------------------------------------------------------------------------------

def _mixer(name: str) -> Any:
    module = registry.load("mixers", name)
    torch.manual_seed(0)
    return module.Mix(module.Params(), _DIMS, 3.0)


def _batch(equal: bool = False) -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(1)
    rows = 1 if equal else 16
    latents = {m: torch.randn((rows, *d), generator=g).expand(16, *d).clone() for m, d in _DIMS.items()}
    targets = (6 * torch.rand(rows, generator=g) - 3).expand(16).clone()
    return latents, targets


def _mixed(name: str, equal: bool = False, grad: bool = False) -> tuple[Any, dict[str, Tensor], Tensor, Any]:
    mixer, (latents, targets) = _mixer(name), _batch(equal)
    if grad:
        latents = {m: x.requires_grad_() for m, x in latents.items()}
    return mixer, latents, targets, mixer.mix(latents, targets, torch.Generator().manual_seed(2))


def _mixes(name: str) -> bool:
    return _mixer(name).probability > 0


def _shapes(name: str) -> str:
    _, latents, targets, out = _mixed(name)
    n = len(out.targets)
    for m, d in _DIMS.items():
        if m not in out.latents or out.latents[m].shape != (n, *d):
            return f"latent '{m}' should be [{n}, {d[0]}], is {list(out.latents[m].shape) if m in out.latents else 'absent'}"
    values = [*out.latents.values(), out.targets]
    return "" if all(torch.isfinite(v).all() for v in values) else "a mixture is not finite"


def _inside(name: str) -> str:
    _, _, targets, out = _mixed(name)
    low, high = targets.min() - 1e-5, targets.max() + 1e-5
    return "" if bool(((out.targets >= low) & (out.targets <= high)).all()) else "a mixed label leaves the range of its parents"


def _identity(name: str) -> str:
    _, latents, targets, out = _mixed(name, equal=True)
    for m, x in latents.items():
        if not torch.allclose(out.latents[m], x[:1].expand_as(out.latents[m]), atol=1e-4):
            return f"equal rows give another '{m}'"
    return "" if torch.allclose(out.targets, targets[:1].expand_as(out.targets), atol=1e-4) else "equal labels give another label"


def _own_draws(name: str) -> str:
    mixer, (latents, targets) = _mixer(name), _batch()
    before = torch.get_rng_state()
    one, two = (mixer.mix(latents, targets, torch.Generator().manual_seed(5)) for _ in range(2))
    if not torch.equal(before, torch.get_rng_state()):
        return "it draws from torch's global generator: use the generator that `mix` is given"
    same = torch.equal(one.targets, two.targets) and all(torch.equal(one.latents[m], two.latents[m]) for m in _DIMS)
    return "" if same else "the same generator gives another mixture"


def _gradient(name: str) -> str:
    mixer, latents, _, out = _mixed(name, grad=True)
    total = sum(x.square().sum() for x in out.latents.values()) + sum(out.losses.values(), torch.zeros(()))
    if total.requires_grad:
        total.backward()
    lost = [m for m, x in latents.items() if x.grad is None or not x.grad.abs().sum()]
    if lost:
        return f"no gradient reaches latent '{lost[0]}'"
    named = dict(mixer.named_parameters())
    own = {id(p) for p in mixer.own_parameters()}
    dead = [k for k, p in named.items() if id(p) in own and p.grad is None]
    return f"no gradient reaches its parameter '{dead[0]}'" if dead else ""


def _only_if_it_mixes(check_: Callable[[str], str]) -> Callable[[str], str]:
    return lambda name: check_(name) if _mixes(name) else ""


# --- models ----------------------------------------------------------------------------------------------------------

def _predicts(name: str) -> str:
    model, data = built(Job(cell(name), SEED))
    model.eval()
    with torch.no_grad():
        encoded = model.encode(data.batch("test", torch.arange(_ROWS)))
        out = model.fuse(encoded.latents).prediction
    if out.shape != (_ROWS,):
        return f"the prediction should be [{_ROWS}], is {list(out.shape)}"
    if not torch.isfinite(out).all():
        return "a prediction is not finite"
    if registry.constants("models", name).get("MIXABLE", True):
        for m, x in encoded.latents.items():
            if tuple(x.shape[1:]) != tuple(model.latent_dims.get(m, ())):
                return f"latent_dims says {model.latent_dims.get(m)} of '{m}', encode gives {tuple(x.shape[1:])}"
    return ""


def _permutation(name: str) -> str:
    model, data = built(Job(cell(name), SEED))
    model.eval()
    order = torch.randperm(_ROWS, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        straight, shuffled = (model(data.batch("test", rows)).prediction for rows in (torch.arange(_ROWS), order))
    drawn = registry.constants("models", name).get("SAMPLES", False)
    return "" if drawn or torch.allclose(straight[order], shuffled, atol=1e-4) else "a shuffled batch does not give shuffled predictions"


def _parameters_learn(name: str) -> str:
    steps = stepper(Job(cell(name), SEED))
    model = steps.model
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    stages: dict[tuple, int] = {}  # what a preparation's epochs update -> the first of them that does
    for epoch in range(1 - model.preparation, 1):
        stages.setdefault(tuple((u.name, u.groups, u.optimiser) for u in updates_of(model, epoch)), epoch)
    epochs = (*stages.values(), 1, 2)  # some losses begin with the second
    updates = updates_of(model, *epochs)
    every = any(u.groups is None for u in updates)
    stepped = {name for u in updates for name in u.groups or ()}
    trained = {id(p) for g in model.groups() for p in g.params if every or g.name in stepped}
    for epoch in epochs:
        model.on_epoch_start(epoch)
        for _ in range(3):
            one_step(steps, False, epoch)()
    idle = registry.constants("models", name).get("IDLE", {})
    still = [
        k for k, p in model.named_parameters()
        if id(p) in trained and p.requires_grad and torch.equal(before[k], p) and not any(fnmatch(k, f"*{part}*") for part in idle)
    ]
    return f"after three steps '{still[0]}' is what it was: no gradient reaches it ({len(still)} such)" if still else ""


# --- both ------------------------------------------------------------------------------------------------------------

def _same_twice(c: Config) -> str:
    with tempfile.TemporaryDirectory() as folder:
        job = Job(c, SEED)
        one, two = Store(f"{folder}/a"), Store(f"{folder}/b")
        run(job, one), run(job, two)
        same = all((one.folder(job) / f).read_bytes() == (two.folder(job) / f).read_bytes() for f in ("metrics.json", "history.csv"))
    return "" if same else "two runs under one seed differ: it draws outside of the streams it is given"


def _captured(c: Config) -> str:
    eager, frozen = stepper(Job(c, SEED)), stepper(Job(c, SEED))
    mixing = frozen.mixer.probability > 0
    for name, m in eager.model.named_modules():
        if isinstance(m, torch.nn.RNNBase) and m.dropout and m.num_layers > 1:
            return f"'{name}' drops out between its layers by itself: on a GPU it draws from one state of the whole process; run a layer at a time"
    torch.manual_seed(7)
    for _ in range(5):
        one_step(eager, mixing)()
    torch.manual_seed(7)
    one_step(frozen, mixing)()
    reads = host_reads(one_step(frozen, mixing))
    if reads:
        return f"a step reads the host, depends on values or has no fixed order on a GPU: {next(iter(reads))}"
    again, _ = replay(one_step(frozen, mixing))
    for _ in range(2):
        again()
    for (k, a), b in zip(eager.model.state_dict().items(), copy.copy(frozen.model.state_dict()).values()):
        if not torch.equal(a, b):
            return f"a frozen step does not train as an eager one does: '{k}' differs"
    return ""


def _searchable(c: Config) -> str:
    """"" where the component takes every setting that `bench tune` would try; what it declares or refuses raises, in one line."""
    found = space(c)
    for trial in range(8):
        drawn = changed(c, settings(c, found, {d.name: d.uniform(c.dataset, c.backbone, trial) for d in found.dimensions}))
        from_params(registry.load("models", c.backbone).Params, drawn.backbone_params, c.backbone)
        from_params(registry.load("mixers", c.mixer).Params, drawn.mixer_params, c.mixer)
        from_params(Protocol, drawn.train, "protocol")
    return ""


_MIXER: dict[str, Callable[[str], str]] = {
    "shapes of the mixture": _only_if_it_mixes(_shapes),
    "labels within their parents' range": _only_if_it_mixes(_inside),
    "equal rows stay what they are": _only_if_it_mixes(_identity),
    "draws from its generator alone": _only_if_it_mixes(_own_draws),
    "gradient reaches latents and own parameters": _only_if_it_mixes(_gradient),
    "a short training, twice the same": lambda name: _same_twice(cell("lmf", name)),
    "a capturable step": lambda name: _captured(cell("lmf", name)),
    "a space that `bench tune` can search": lambda name: _searchable(cell("lmf", name)),
}
_MODEL: dict[str, Callable[[str], str]] = {
    "predictions and latents": _predicts,
    "a shuffled batch": _permutation,
    "every parameter learns": _parameters_learn,
    "a short training, twice the same": lambda name: _same_twice(cell(name)),
    "a capturable step": lambda name: _captured(cell(name)),
    "a space that `bench tune` can search": lambda name: _searchable(cell(name)),
    "with a mixer": lambda name: _captured(cell(name, "msmix")) if registry.constants("models", name).get("MIXABLE", True) else "",
}
