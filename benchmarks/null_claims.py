"""How often the claims' verdicts are wrong where all methods are equal in truth.

    python -m benchmarks.null_claims [--sets 1000] [--more 10000] [--seeds 2 3 5 10] [--out benchmarks/null_claims.json]
    python -m benchmarks.null_claims --claims powmix-c02 slad-c28    # these alone, put in place of their lines in --out

Plants a results folder in which every system that a paper prints was run and all of them are equally good, and judges
every claim of the ledger on it, thousands of times. The noise is that of results/reference: the metrics of one run move
together as they do there, methods under one seed share what they share there, and accuracies are whole numbers of test
items. A verdict is wrong where a claim is called reproduced that does not hold in the planted truth, contradicted though
it does not fail there, or partly reproduced though no comparison of it holds. Claims that are wrong in more than 3 % of
the sets are drawn anew, in so many more sets that their rate is known to a tenth of itself.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis import reported
from bench.analysis.agreement import USUAL_RUNS
from bench.analysis.cells import FIXED, KEY, by_key, key
from bench.analysis.claims import load, verdict
from bench.analysis.claims.evidence import ROPE, evidence
from bench.analysis.claims.ledger import Claim
from bench.analysis.claims.predicates import Comparison, Key
from bench.analysis.claims.runs import Testable, compiled, judge
from bench.experiments import all_experiments
from bench.matrix import Experiment, dataset_name
from bench.measure.needs import point
from bench.store import Store

ROOT = Path(__file__).parents[1]
ITEMS = {"mosi": 686, "mosei": 4659, "sims": 457, "ur-funny": 994, "mustard": 138}  # test items
ALIKE = {"acc2": "non0_acc2", "f1": "non0_f1", "accuracy": "has0_acc2", "acc3": "acc5"}  # of other datasets: moves as
OTHER = {"params": 1e7, "gflops": 5.0}
WITHIN = 0.7  # correlation of a run with itself under another corruption of the test split (ours)
CHUNK = 100


def reference_noise(root: Path = ROOT / "results" / "reference") -> tuple[list[str], np.ndarray, np.ndarray, float]:
    """(metrics, mean level [M], covariance over seeds [M, M], correlation of two methods under one seed) of the cells of
    the reference results that have five seeds."""
    store = Store(root)
    values, _ = store.frames(store.scan())
    test = values[(values["split"] == "test") & values["backbone"].isin(["tfn", "lmf"])]
    table = test.pivot_table(index=["backbone", "config", "seed"], columns="metric", values="value")
    table = table[table.groupby(level=["backbone", "config"])["mae"].transform("size") == 5]
    rest = table - table.groupby(level=["backbone", "config"]).transform("mean")
    cells = rest.groupby(level=["backbone", "config"]).ngroups
    covariance = rest.T.to_numpy() @ rest.to_numpy() / (len(rest) - cells)
    shared = []
    for _, block in rest["avg"].groupby(level="backbone"):
        by_seed = block.unstack("config").to_numpy()
        r = np.corrcoef(by_seed.T)
        shared.append(r[np.triu_indices(len(r), 1)].mean())
    return list(rest.columns), table.mean().to_numpy(), covariance, max(0.0, float(np.mean(shared)))


class World:
    """Every cell that a claim may use, and draws of it under equal methods."""

    def __init__(self, experiments: Iterable[Experiment], printed: pd.DataFrame) -> None:
        self.metrics, levels, covariance, self.shared = reference_noise()
        self.root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(covariance)))
        self.source: dict[Key, tuple[str, str, str]] = {}
        block: dict[str, str] = {}
        for e in experiments:
            for row in e.rows:
                for column in e.columns:
                    config = row.cells.get(column.group) or (row.cells.get("") if not column.group else None)
                    if config is None or column.source or column.metric.endswith(("_p_value", "_change")):
                        continue
                    k = (e.id, dataset_name(config.dataset).replace("_", "-"), *row.key, column.metric)
                    self.source[k] = (config.id, " ".join(row.points) or point(e, row, column) or "", column.metric)
                    block[config.id] = f"{config.dataset} {config.backbone}"
        for cell in printed.to_dict("records"):
            k = key(cell)
            if k not in self.source and cell["variant"] != "reported":  # a system that is not implemented here
                name = "/".join(k[:-1])
                self.source[k] = (name, "", k[-1])
                block[name] = name
        self._block_of = block
        self._known = dict(zip(self.metrics, levels))
        self._index()

    def narrow(self, keys: Iterable[Key]) -> "World":
        """The same world with some of its cells alone: cheaper to draw."""
        other, keys = copy.copy(self), set(keys)
        other.source = {k: v for k, v in self.source.items() if k in keys}
        other._index()
        return other

    def _index(self) -> None:
        block = self._block_of
        self.keys = list(self.source)
        self.row = {k: i for i, k in enumerate(self.keys)}
        self.training = {k: s[0] for k, s in self.source.items()}
        self.cells = [dict(zip(KEY, k)) for k in self.keys]
        self._levels(self._known)
        runs, places = list(dict.fromkeys(self.training.values())), list(dict.fromkeys(s[:2] for s in self.source.values()))
        blocks = list(dict.fromkeys(block[r] for r in runs))
        self._block = np.array([blocks.index(block[r]) for r in runs])
        run_of = {r: i for i, r in enumerate(runs)}
        self._run = np.array([run_of[p[0]] for p in places])
        self._clean = np.array([not p[1] for p in places])
        place_of = {p: i for i, p in enumerate(places)}
        self._place = np.array([place_of[self.source[k][:2]] for k in self.keys])

    def _levels(self, known: Mapping[str, float]) -> None:
        self.truth, self._metric, self._sd, self._step = (np.zeros(len(self.keys)) for _ in range(4))
        self._metric = self._metric.astype(int)
        for i, k in enumerate(self.keys):
            name = ALIKE.get(k[-1], k[-1])
            self._metric[i] = self.metrics.index(name) if name in known else -1
            self.truth[i] = known.get(name, OTHER.get(k[-1], 0.5))
            self._sd[i] = 0.0 if k[-1] in FIXED else 0.05 * self.truth[i]
            if "acc" in k[-1]:
                items = ITEMS.get(k[1], 686)
                self._step[i] = 1 / (656 if items == 686 and k[-1].startswith("non0") else items)
                self.truth[i] = round(self.truth[i] / self._step[i]) * self._step[i]

    def draw(self, rng: np.random.Generator, sets: int, n: int) -> np.ndarray:
        """[sets, cells, n] values of runs."""
        m = len(self.metrics)

        def noise(count: int) -> np.ndarray:
            return rng.standard_normal((sets, count, n, m))

        own, common = noise(len(self._block)), noise(int(self._block.max()) + 1)[:, self._block]
        run = math.sqrt(1 - self.shared) * own + math.sqrt(self.shared) * common
        place = run[:, self._run]
        moved = ~self._clean
        place[:, moved] = math.sqrt(WITHIN) * place[:, moved] + math.sqrt(1 - WITHIN) * noise(int(moved.sum()))
        correlated = place @ self.root.T  # (S, places, n, M)
        cells = np.take_along_axis(
            correlated[:, self._place], np.maximum(self._metric, 0)[None, :, None, None], axis=3
        )[..., 0]
        free = self._metric < 0
        cells[:, free] = self._sd[free][None, :, None] * rng.standard_normal((sets, int(free.sum()), n))
        values = self.truth[None, :, None] + cells
        whole = self._step > 0
        step = self._step[whole][None, :, None]
        values[:, whole] = np.round(values[:, whole] / step) * step
        return values


def truth_of(t: Testable, world: World) -> tuple[str, bool]:
    """(verdict on the planted truth, whether any comparison holds there)."""
    states = [verdict.of_group([_true(c, world) for c in g.comparisons], g.allowed) for g in t.groups]
    return verdict.of_claim(states, t.claim.need), verdict.TRUE in states


def _true(c: Comparison, world: World) -> str:
    if c.missing or any(k not in world.row for k in c.keys):
        return verdict.MISSING
    if c.spread:
        return verdict.OPEN  # equal
    values = [world.truth[world.row[t.choices[0] if t.choices else t.key]] if t.keys else t.constant for t in c.terms]
    x = 100 * (values[0] - values[1]) / values[1] if c.percent else sum(t.weight * v for t, v in zip(c.terms, values))
    slack = ROPE if c.quoted is not None and len(c.keys) == 1 else 0.0
    low, high = c.low - slack, c.high + slack
    if min(abs(x - low), abs(x - high)) < 1e-9:  # on the edge neither verdict is right, but for what cannot vary
        return (verdict.FALSE if c.strict else verdict.TRUE) if all(k[-1] in FIXED for k in c.keys) else verdict.OPEN
    return verdict.TRUE if low < x < high else verdict.FALSE


def simulate(
    world: World, claims: Sequence[Claim], printed: pd.DataFrame, n: int, sets: int, seed: int = 0, chunk: int = CHUNK
) -> pd.DataFrame:
    """One line per claim: how often it got which verdict in `sets` results folders of n seeds."""
    cells = by_key(printed.to_dict("records"))
    known = [compiled(c, world.cells, world.source) for c in claims]
    rng, counts = np.random.default_rng([seed, n]), [dict.fromkeys(verdict.STATES, 0) for _ in claims]
    for start in range(0, sets, chunk):
        size = min(chunk, sets - start)
        values = world.draw(rng, size, n)
        for t, count in zip(known, counts):
            if not t.groups:
                continue
            there = [not c.missing and all(k in world.row for k in c.keys) for c in t.comparisons]
            runs = [min((int(cells[k]["n"]) for k in c.keys if k in cells and not pd.isna(cells[k]["n"])),
                        default=USUAL_RUNS) for c in t.comparisons]
            found = evidence(t.comparisons, world.row, values, runs)
            for state in judge(t, found, there, world.training).state:
                count[state] += 1
    lines = []
    for t, count in zip(known, counts):
        holds, some = truth_of(t, world) if t.groups else (verdict.UNTESTABLE, False)
        wrong = (holds != verdict.HOLDS) * count[verdict.REPRODUCED] + (not some) * count[verdict.PARTLY]
        wrong += (holds != verdict.FAILS) * count[verdict.CONTRADICTED]
        lines.append({"id": t.claim.id, "n": n, "sets": sets, "truth": holds, "wrong": wrong, **count})
    return pd.DataFrame(lines)


def again(world: World, claims: Sequence[Claim], printed: pd.DataFrame, n: int, sets: int) -> pd.DataFrame:
    """Some claims in further sets, with the cells that they use alone."""
    return simulate(used_by(world, claims), claims, printed, n, sets, seed=1, chunk=500)


def used_by(world: World, claims: Sequence[Claim]) -> World:
    """The world of the cells that some claims use."""
    known = [compiled(c, world.cells, world.source) for c in claims]
    return world.narrow(k for t in known for c in t.comparisons for k in c.keys)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sets", type=int, default=1000)
    arguments.add_argument("--more", type=int, default=10_000, help="further sets of claims that were wrong in 3 %% of all")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 10])
    arguments.add_argument("--claims", nargs="+", default=[], help="ids of claims to draw again, alone")
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    a = arguments.parse_args()
    printed, claims, began, found = reported.load(), load(), time.perf_counter(), []
    world = World(all_experiments().values(), printed)
    if a.claims:
        claims = [c for c in claims if c.id in a.claims]
        world = used_by(world, claims)
    for n in a.seeds:
        first = simulate(world, claims, printed, n, a.sets)
        found.append(first.assign(round="first"))
        often = [c for c in claims if c.id in set(first.loc[first["wrong"] > 0.03 * a.sets, "id"])]
        if often and a.more:  # one claim at a time: few cells each
            second = pd.concat([again(world, [c], printed, n, a.more) for c in often])
            found.append(second.assign(round="second"))
            first = pd.concat([first[~first["id"].isin(second["id"])], second])
        rate = first["wrong"] / first["sets"]
        worst = first.iloc[int(rate.to_numpy().argmax())]
        print(f"n = {n}: mean rate of wrong verdicts {rate.mean():.4f}, worst {rate.max():.4f} ({worst['id']}, "
              f"{worst['sets']} sets); {len(often)} of {len(claims)} claims drawn anew", flush=True)
    lines: list[dict[str, Any]] = pd.concat(found).to_dict("records")
    noise = {"source": "results/reference, TFN and LMF, five seeds", "shared_by_methods": round(world.shared, 4)}
    if a.claims:
        before = json.loads(a.out.read_text())
        kept = [line for line in before["claims"] if (line["id"], line["n"]) not in {(x["id"], x["n"]) for x in lines}]
        places = {id_: i for i, id_ in enumerate(c.id for c in load())}
        lines = sorted([*kept, *lines], key=lambda x: (a.seeds.index(x["n"]) if x["n"] in a.seeds else -1, x["round"] != "first", places[x["id"]]))
        began -= before["seconds"]
        noise = {**before["noise"], "drawn_again": {"claims": a.claims, "shared_by_methods": noise["shared_by_methods"]}}
    a.out.write_text(json.dumps({
        "what": "verdicts of every claim on planted results in which all methods are equal", "alpha": verdict.ALPHA,
        "noise": noise,
        "seconds": round(time.perf_counter() - began, 1), "claims": lines,
    }, indent=None, separators=(",", ":")).replace('{"id"', '\n{"id"') + "\n")


if __name__ == "__main__":
    main()
