"""Equal-budget search of hyperparameters, on validation data only.

Every method of a block, the plain backbone included, gets the same number of trials on the same tuning seeds, which are
never the evaluation's. Trial 0 is the published setting, so that tuning cannot lose on validation by bad luck. A trial
is an ordinary job: stored, shared, resumed and run by whatever launcher runs jobs; a search that was killed asks the
same questions again and finds their answers stored. Nothing here reads a test value.

Samplers
    random    draws that depend on (dataset, backbone, trial) alone: methods of a backbone share them
    tpe       a third of the budget at random, as above, then Optuna's tree-structured Parzen estimator, asked for BATCH
              trials at a time whatever the number of workers, so that the trail does not depend on them
    halving   as random, but trials train for RUNGS[0] epochs; the better third goes on to RUNGS[1], a third of that
              to the end, and the published setting always; a rung as long as the whole training is left out.
              Saves most of the epochs and may drop a slow starter; the
              trail says how many epochs were trained
    paper     the method's own paper's search where it states one (PowMix Sec. 5.5: p_mix at n_O = 256, then n_O), one
              dimension after the other; a method without one is searched at random
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.errors import BenchError
from bench.matrix import Config, Job
from bench.seeds import FIELD_SEEDS, stream_seed
from bench.spaces import Dimension, Draw, Space, changed, settings, space
from bench.store import DONE, Store
from bench.trails import PUBLISHED, Trail, Trial, finite, lower_is_better, write
from bench.train.protocol import Protocol

SAMPLERS = ("tpe", "random", "halving", "paper")
FIRST_SEED = 101  # tuning seeds count up from here, far below the evaluation's 1111
BATCH = 4
RUNGS = (3, 9)  # epochs
THIRD = 3
Run = Callable[[Sequence[Job], Callable[[Job], Sequence[Job]]], None]  # runs jobs, and what each one's end gives rise to;
# failures are in the store


def seeds(n: int) -> tuple[int, ...]:
    """n tuning seeds. Raises BenchError where they would reach the evaluation's."""
    if not 1 <= n <= FIELD_SEEDS[0] - FIRST_SEED:
        raise BenchError(f"--tuning-seeds takes 1 to {FIELD_SEEDS[0] - FIRST_SEED}, got {n}")
    return tuple(range(FIRST_SEED, FIRST_SEED + n))


def tune(
    cells: Iterable[Config], store: Store, run: Run, budget: int, sampler: str = "tpe", n_seeds: int = 1,
    objective: str = "loss", data: Mapping[tuple[str, str], str] | None = None,
) -> list[Trail]:
    """Search every cell with the same budget; trails are stored as they grow. `data`: (dataset, features) ->
    sha256 of the file at hand, so that trials on another file are run again."""
    if sampler not in SAMPLERS:
        raise BenchError(f"--sampler takes {', '.join(SAMPLERS)}, got '{sampler}'")
    if budget < 1:
        raise BenchError("--budget takes a whole number from 1")
    searches = [_Search(c, store, budget, sampler, seeds(n_seeds), objective, data or {}) for c in dict.fromkeys(cells)]
    course = _Course(searches, store, data)
    if jobs := course.first():
        run(jobs, course.after)
    return [s.trail for s in searches]


class _Course:
    """Which search waits for which trials. Each goes on as soon as its own have ended: what it asks next depends on none of
    the others."""

    def __init__(self, searches: Sequence["_Search"], store: Store, data: Mapping[tuple[str, str], str] | None) -> None:
        self.searches, self.store, self.data = searches, store, data
        self.waiting: list[set[Job]] = [set() for _ in searches]  # by search: jobs under way that it asked for
        self.under_way: set[Job] = set()

    def first(self) -> list[Job]:
        """The jobs to begin with."""
        return self._new(j for i in range(len(self.searches)) for j in self._go_on(i))

    def after(self, job: Job) -> list[Job]:
        """The jobs to run once this one has ended, done or failed."""
        self.under_way.discard(job)
        asked: list[Job] = []
        for i, waiting in enumerate(self.waiting):
            if job in waiting:
                waiting.discard(job)
                if not waiting:
                    self._tell(i)
                    asked += self._go_on(i)
        return self._new(asked)

    def _new(self, asked: Iterable[Job]) -> list[Job]:
        new = [j for j in dict.fromkeys(asked) if j not in self.under_way]
        self.under_way.update(new)
        return new

    def _go_on(self, i: int) -> Sequence[Job]:
        """A search's next jobs that are not done; past those that are."""
        s = self.searches[i]
        while not s.done:
            missing = [j for j in dict.fromkeys(s.ask()) if self.store.status(j, self.data) != DONE]
            if missing:
                self.waiting[i] = set(missing)
                return missing
            self._tell(i)
        return ()

    def _tell(self, i: int) -> None:
        self.searches[i].tell()
        write(self.store, self.searches[i].trail)


class _Search:
    """The search of one cell: `ask` for jobs, train them, `tell`."""

    def __init__(
        self, cell: Config, store: Store, budget: int, sampler: str, tuning_seeds: tuple[int, ...], objective: str,
        data: Mapping[tuple[str, str], str],
    ) -> None:
        self.cell, self.store, self.data = cell, store, data
        self.space: Space = space(cell)
        self.trail = Trail(
            cell.as_dict(), sampler, budget, tuning_seeds, objective, self.space.as_dict(), self.space.sources,
            data=data.get((cell.dataset, cell.features), ""),
        )
        self.asked: list[tuple[int, Draw, int]] = []  # number, draw, rung
        self.rung = 0
        self.alive: list[tuple[int, Draw]] = []
        self.turn = 0  # of the paper's search: the dimension it is at
        self.history: list[tuple[Draw, float]] = []
        self.study = self._study() if sampler == "tpe" else None

    @property
    def done(self) -> bool:
        return self.trail.complete and not self.alive

    def _study(self) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = stream_seed(self.cell.dataset, self.cell.backbone, 0, "tuning") % 2**32
        with warnings.catch_warnings():  # constant_liar, which batches need, is called experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
        return optuna.create_study(direction="minimize", sampler=sampler)

    # --- which settings -----------------------------------------------------------------------------------------

    def ask(self) -> list[Job]:
        """Jobs of the next trials."""
        t, budget = self.trail, self.trail.budget
        if t.sampler == "halving":
            self._ask_rung()
        elif t.sampler == "paper" and self.space.order:
            self._ask_paper()
        else:
            first = len(t.trials)
            self.asked = [(n, self._draw(n), 0) for n in range(first, min(first + BATCH, budget))]
        return [Job(self._config(draw, rung), s) for _, draw, rung in self.asked for s in t.seeds]

    def _draw(self, number: int) -> Draw:
        dims, c = self.space.dimensions, self.cell
        if number == 0:
            found = {d.name: d.published for d in dims}
        elif self.study is not None and number >= max(2, math.ceil(self.trail.budget / THIRD)):
            return self._suggest(None)
        else:
            found = {d.name: d.uniform(c.dataset, c.backbone, number) for d in dims}
        return found if self.study is None else self._suggest(found)

    def _suggest(self, fixed: Draw | None) -> Draw:
        """Optuna's proposal, or a given draw entered into its study."""
        if fixed is not None:
            self.study.enqueue_trial(dict(fixed))
        trial, found = self.study.ask(), {}
        for d in self.space.dimensions:
            if d.choices:
                found[d.name] = trial.suggest_categorical(d.name, list(d.choices))
            elif d.integer:
                found[d.name] = trial.suggest_int(d.name, int(d.low), int(d.high), log=d.log)
            else:
                value = trial.suggest_float(d.name, d.low, d.high, log=d.log)
                found[d.name] = value if fixed is not None else float(f"{value:.4g}")
        return found

    def _ask_rung(self) -> None:
        if not self.alive:
            self.alive = [(n, self._draw(n)) for n in range(self.trail.budget)]
        epochs = RUNGS[self.rung] if self.rung < len(RUNGS) and len(self.alive) > 1 else 0
        if epochs >= _epochs(self.cell):  # the whole training is no longer than the rung
            epochs = 0
        self.asked = [(n, draw, epochs) for n, draw in self.alive]

    def _ask_paper(self) -> None:
        """The published setting, then one dimension of the paper's order at a time, its values spread over an equal
        share of the budget, the others at the best found so far; again from the first where trials are left, and at
        random where every value was tried."""
        t, order, first = self.trail, self.space.order, len(self.trail.trials)
        if not first:
            self.asked = [(PUBLISHED, self._draw(PUBLISHED), 0)]
            return
        left = t.budget - first
        share = min(left, math.ceil((t.budget - 1) / len(order)))
        base, tried = min(self.history, key=lambda h: h[1])[0], [d for d, _ in self.history]
        new: list[Draw] = []
        for _ in order:
            d = next(d for d in self.space.dimensions if d.name == order[self.turn % len(order)])
            self.turn += 1
            new = [x for v in d.choices or self._grid(d, share) if (x := {**base, d.name: v}) not in tried]
            if new:
                break
        if len(new) > share:  # spread over the whole range, both ends among them
            new = [new[round(i * (len(new) - 1) / max(share - 1, 1))] for i in range(share)]
        new = new or [self._draw(first)]
        self.asked = [(first + i, draw, 0) for i, draw in enumerate(new)]

    def _grid(self, d: Dimension, count: int) -> list[float]:
        low, high = (math.log(d.low), math.log(d.high)) if d.log else (d.low, d.high)
        points = [low + (high - low) * i / max(count - 1, 1) for i in range(count)]
        return [float(f"{math.exp(p) if d.log else p:.4g}") for p in points]

    def _config(self, draw: Draw, rung: int) -> Config:
        made = changed(self.cell, settings(self.cell, self.space, draw))
        if not rung:
            return made
        whole = made.train.get("schedule_epochs") or _epochs(made)
        return made.with_(train={"max_epochs": rung, "schedule_epochs": whole})  # the schedule of the whole training

    # --- what they gave -----------------------------------------------------------------------------------------

    def tell(self) -> None:
        found = []
        for number, draw, rung in self.asked:
            trial = self._outcome(number, draw, rung)
            found.append((trial, draw))
            if self.study is not None:
                worst = trial.value is None
                state = {"state": _failed_state()} if worst else {}
                self.study.tell(number, None if worst else self._sign * trial.value, **state)
        self.history += [(draw, math.inf if t.value is None else self._sign * t.value) for t, draw in found]
        if self.trail.sampler == "halving":
            self._tell_rung(found)
        else:
            self.trail.trials += [t for t, _ in found]

    @property
    def _sign(self) -> int:
        return 1 if lower_is_better(self.trail.objective) else -1

    def _tell_rung(self, found: list[tuple[Trial, Draw]]) -> None:
        if not found[0][0].rung:  # trained in full: these are the last
            self.trail.trials += [t for t, _ in found]
            self.trail.trials.sort(key=lambda t: t.number)
            self.alive = []
            return
        ranked = sorted(found, key=lambda f: (math.inf if f[0].value is None else self._sign * f[0].value, f[0].number))
        challengers = [f for f in ranked if f[0].number != PUBLISHED]
        kept = challengers[: math.ceil(len(challengers) / THIRD)]
        on = [f for f in ranked if f in kept or f[0].number == PUBLISHED]
        self.trail.trials += [f[0] for f in ranked if f not in on]
        self.alive = sorted(((t.number, draw) for t, draw in on), key=lambda a: a[0])
        self.rung += 1

    def _outcome(self, number: int, draw: Draw, rung: int) -> Trial:
        c, values = self._config(draw, rung), {}
        for s in self.trail.seeds:
            job = Job(c, s)
            if self.store.status(job, self.data) == DONE:
                metrics = self.store.metrics(job) or {}
                self.trail.epochs += int(metrics.get("epochs", 0))
                value = finite((metrics.get("valid") or {}).get(self.trail.objective))
                if value is not None:
                    values[str(s)] = value
        whole = len(values) == len(self.trail.seeds)
        mean = math.fsum(values.values()) / len(values) if whole else None
        return Trial(number, settings(self.cell, self.space, draw), c.id, values, mean, rung)


def _epochs(c: Config) -> int:
    return c.train.get("max_epochs", Protocol.max_epochs)


def _failed_state() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL
