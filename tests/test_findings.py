"""Every number in the tables of docs/findings.md comes from the committed raw files."""

import json
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
NAMES = {"Manifold Mix": "manifold", "MultiMix": "multimix", "AdvMixUp": "advmixup", "PowMix": "powmix", "MS-Mix": "msmix",
         "TFN": "tfn", "LMF": "lmf", "MulT": "mult", "MISA": "misa", "Self-MM": "self_mm", "ALMT": "almt", "CP+SL": "cpsl",
         "SAM-LML": "samlml", "C-MIB": "cmib", "MMIM": "mmim", "plain": "none"}


def page() -> str:
    return (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


def tables() -> dict[str, list[list[str]]]:
    """First header cells and section -> rows, of every table of the page."""
    found, section = defaultdict(list), ""
    for line in page().splitlines():
        section = line.lstrip("# ") if line.startswith(("## ", "### ")) else section
        if line.startswith("|") and "---" not in line:
            found[section].append([c.strip() for c in line.strip("|\n").split("|")])
    return found


@lru_cache
def runs() -> dict[str, list[tuple[dict, dict]]]:
    """Config -> its jobs on evaluation seeds, in the order of their seeds: (job.json, metrics.json)."""
    found = defaultdict(list)
    for path in sorted(REFERENCE.glob("mosi/*/*/job.json"), key=lambda p: p.parent.name[-4:]):
        job = json.loads(path.read_text())
        if job["seed"] >= 1111:
            found[job["id"].partition("-")[0]].append((job, json.loads((path.parent / "metrics.json").read_text())))
    return dict(found)


def of(config: str, metric: str, split: str = "test", scale: float = 1) -> np.ndarray:
    return np.array([m[split][metric] * scale for _, m in runs()[config]])


def said(values: np.ndarray, digits: int) -> str:
    """As the page prints it: mean ± sample standard deviation, or the value of one run."""
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


@lru_cache
def planned(suite: str, artefact: str) -> dict[tuple[str, ...], str]:
    """(system, method or variant) -> config of a plan's cells on MOSI."""
    from bench.matrix import Config

    cells = json.loads((REFERENCE / "plans" / f"{suite}.json").read_text())["artefacts"][artefact]["cells"]
    return {(system, method or variant): Config(**c).id for system, method, variant, column, c in cells if column == "MOSI"}


def row(config: str) -> list[str]:
    avg = "avg" in runs()[config][0][1]["test"]
    return [str(len(runs()[config])), said(of(config, "non0_acc2", scale=100), 2), said(of(config, "mae"), 3),
            said(of(config, "avg", scale=100), 2) if avg else "-"]


def candidates(backbone: str, mixer: str) -> list[str]:
    """Configs of a cell, whatever their settings."""
    return [c for c, jobs in runs().items() if (jobs[0][0]["backbone"], jobs[0][0]["mixer"]) == (backbone, mixer)]


def test_reference_runs():
    """Rows that were planned are those cells' runs; the others (fewer epochs, another encoder, an earlier version) are
    the runs of one config of their backbone and mixer."""
    rows = tables()["Reference runs"][1:]
    reported = pd.read_csv(ROOT / "experiments" / "reported" / "msmix.csv")
    reported = reported[(reported.artefact == "msmix-t1") & (reported.metric == "avg")].set_index(["backbone", "method"])["mean"]
    assert len(rows) == 34
    for name, *values, printed in rows:
        system, _, method = (name, "", "plain") if name in NAMES else name.replace(" plain", " + plain").partition(" + ")
        mixer = NAMES[method.removesuffix(" (release)")]
        config = planned("real", "msmix-t1").get((system, method))
        among = [config] if config in runs() and len(runs()[config]) > 1 else candidates(NAMES[system], mixer)
        assert values in [row(c) for c in among], (name, values, [row(c) for c in among])
        if printed != "-":
            assert float(printed) == reported[system, method], name


def test_ablation():
    rows = tables()["The ablation"][1:]
    reported = pd.read_csv(ROOT / "experiments" / "reported" / "msmix.csv")
    reported = reported[(reported.artefact == "msmix-t4") & (reported.metric == "avg")].set_index("variant")["mean"]
    assert len(rows) == 8
    for name, n, acc2, avg, printed in rows:
        found = row(planned("real", "msmix-t4")["LMF", name])
        assert [n, acc2, avg] == [found[0], found[1], found[3]] and float(printed) == reported[name], name


def trails(backbone: str) -> dict[tuple[str, str], dict]:
    """(mixer, variant) -> trail of a search on MOSI."""
    found = [json.loads(p.read_text()) for p in REFERENCE.glob(f"tuning/mosi/{backbone}+*/*.json")]
    return {(t["cell"]["mixer"], t["cell"]["mixer_params"].get("variant", "")): t for t in found}


@pytest.mark.parametrize("backbone", ["TFN", "LMF"])
def test_equal_tuning(backbone):
    """Means, what tuning alone does, and differences over plain, by seed with their t intervals; the smallest p after Holm."""
    published, searches = planned("real", "msmix-t1"), trails(backbone.lower())
    rows = tables()[f"Tuned: {backbone}"][1:]
    assert len(rows) == 7

    def over(a: str, b: str) -> str:
        d = of(a, "avg", scale=100) - of(b, "avg", scale=100)
        half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
        return f"{d.mean():+.2f} [{d.mean() - half:+.2f}, {d.mean() + half:+.2f}]".replace("-", "\u2212")

    chosen = {k: min(t["trials"], key=lambda one: one["value"]) for k, t in searches.items()}
    plain, p = chosen["none", ""]["config"], {}
    for name, first, best, avg, avg_tuned, alone, *differences in rows:
        key = (NAMES[name.removesuffix(" (release)")], "release" if "release" in name else "")
        before, after = published[backbone, name], chosen[key]["config"]
        assert [first, best] == [f"{t['value']:.4f}" for t in (searches[key]["trials"][0], chosen[key])], name
        assert [avg, avg_tuned, alone] == [*(said(of(c, "avg", scale=100), 2) for c in (before, after)), over(after, before)], name
        if name != "plain":
            assert differences == [over(before, published[backbone, "plain"]), over(after, plain)], name
            p[name] = stats.ttest_rel(of(after, "avg"), of(plain, "avg")).pvalue
    smallest = min(p, key=p.get)
    ((_, printed, whose),) = re.findall(rf"### Tuned: ({backbone})\n\nSmallest p after Holm with both tuned: (\S+) \((.*?)[,)]", page())
    assert (printed, whose) == (f"{len(p) * p[smallest]:.3f}", smallest)
    # the sentences: every method is behind the plain backbone when both are tuned, and which intervals lie below zero
    assert all(r[7].startswith("\u2212") for r in rows[1:])
    assert [r[0] for r in rows[1:] if "+" not in r[7]] == {"TFN": ["Manifold Mix", "MS-Mix"], "LMF": []}[backbone]


def test_what_is_said_of_the_searches():
    """Sizes of the spaces, gains that the paper prints, the chosen weights, and trainings that learned nothing."""
    reported = pd.read_csv(ROOT / "experiments" / "reported" / "msmix.csv")
    reported = reported[(reported.artefact == "msmix-t1") & (reported.metric == "avg") & (reported.dataset == "mosi")]
    avg = reported.set_index(["backbone", "method"])["mean"]
    text = " ".join(page().split())
    gains = [f"+{avg[b, 'MS-Mix'] - avg[b, 'plain']:.2f}" for b in ("TFN", "LMF")]
    assert f"the paper reports for MS-Mix with these two ({gains[0]} and {gains[1]})" in text
    assert {len(trails(b)["none", ""]["space"]) for b in ("tfn", "lmf")} == {5} and "have 5 settings to search, MS-Mix has 11" in text
    for backbone, printed in (("tfn", "(beta 3.6, xi_2 0.65)"), ("lmf", "(beta 52, xi_2 0.11)")):
        trail = trails(backbone)["msmix", ""]
        best = min(trail["trials"], key=lambda one: one["value"])["settings"]
        assert len(trail["space"]) == 11 and printed in text
        assert printed == f"(beta {best['mixer.beta']:.2g}, xi_2 {best['mixer.xi2']:.2f})"

    def left(folder: Path) -> float:
        return json.loads((folder / "metrics.json").read_text())["valid"]["loss"]

    tfn = [json.loads(p.read_text()) for p in REFERENCE.glob("mosi/tfn+*/*/metrics.json")]
    (constant,) = {m["constant_loss"] for m in tfn}  # of one file, so LMF's too, whose runs did not store it
    assert f"{constant:.3f} on this file" in text
    assert len(tfn) == 154 and f"{max(m['valid']['loss'] for m in tfn) / constant:.2f}" == "0.75"
    lmf = {(t["cell"]["mixer"], x["config"]) for t in trails("lmf").values() for x in t["trials"]}
    lmf |= {("", c) for (system, _), c in planned("real", "msmix-t1").items() if system == "LMF"}
    folders = sorted(f for _, c in lmf for f in REFERENCE.glob(f"mosi/lmf+*/{c}-s*") if left(f) > 0.95 * constant)
    assert [(f.parent.name, f.name[-5:].lstrip("-"), f"{left(f):.3f}") for f in dict.fromkeys(folders)] == [
        ("lmf+multimix", "s1111", "1.436"), ("lmf+multimix", "s1112", "1.437"), ("lmf+none", "s101", "1.437")]


def test_what_is_left_of_the_searches_on_other_seeds():
    """Validation loss of the evaluation's seeds, published minus chosen: where it falls by more than its interval, where it
    rises, and where nothing was changed."""
    falls, rises, same = [], [], []
    for backbone in ("tfn", "lmf"):
        for key, t in trails(backbone).items():
            before, after = (of(c, "loss", "valid") for c in (t["trials"][0]["config"], min(t["trials"], key=lambda x: x["value"])["config"]))
            d = after - before
            if not d.any():
                same.append((backbone, *key))
                continue
            half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
            if abs(d.mean()) > half:
                falls.append((backbone, *key))
                told = f"{before.mean():.3f} to {after.mean():.3f} ({d.mean():+.3f} [{d.mean() - half:+.3f}, {d.mean() + half:+.3f}])"
                assert told.replace("-", "\u2212") in " ".join(page().split())
            elif d.mean() > 0:
                rises.append((backbone, *key))
    assert falls == [("lmf", "msmix", "")] and same == [("lmf", "powmix", "")] and len(rises) == 5
    assert "thirteen rows twelve have an interval across 0, five of them a mean that rises, and one keeps" in " ".join(page().split())


def test_devices_and_precisions():
    """Which runs were on what: nothing is compared across devices within a backbone."""
    env = {p: json.loads(p.read_text()) for p in REFERENCE.glob("mosi/*/*/env.json")}
    tfn = {p for p in env if p.parent.parent.name.startswith("tfn+")}
    assert len(tfn) == 154 and {(env[p]["device"], env[p]["precision"]) for p in tfn} == {("NVIDIA H200", "float32")}
    assert {env[p]["device"].partition(" ")[0] for p in env if p not in tfn} == {"CPU"}
    bf16 = {p.parent.parent.name.partition("+")[0] for p in env if env[p].get("precision") == "bf16 autocast"}
    assert bf16 == {"misa", "self_mm", "almt"}
    for p in env:  # where nothing is said of the precision, the run did not ask for bf16
        assert "precision" in env[p] or not json.loads((p.parent / "job.json").read_text())["train"].get("amp")
    both = pd.read_csv(ROOT / "benchmarks" / "h200" / "5-tfn-cpu-cuda.csv")
    cuda = pd.read_csv(ROOT / "benchmarks" / "h200" / "4-real-runs.csv").rename(columns=lambda c: c.removeprefix("test_"))
    for backbone, frame, printed in (("TFN", both[both.device == "cpu"], "1.00"), ("LMF", cuda, "0.83")):
        assert len(frame) == 35
        p_values = []
        for (system, method), config in planned("real", "msmix-t1").items():
            if system == backbone:
                other = frame[frame.job.str.startswith(config)] if "job" in frame else frame[frame.row == method]
                assert len(other) == 5, (backbone, method)
                p_values += [stats.ttest_ind(other[m], of(config, m), equal_var=False).pvalue for m in ("mae", "corr", "non0_acc2")]
        assert len(p_values) == 21 and f"{min(1, 21 * min(p_values)):.2f}" == printed, (backbone, min(p_values))


def test_weights_of_the_alignment_loss():
    """beta is what --set says: the printed one is 1000 (MS-Mix Sec. 3.4), and every row has that beta."""
    rows = tables()["The weight of MS-Mix's alignment loss"][1:]
    own = {"plain backbone": "plain", "as printed (beta = 1000)": "MS-Mix", "the release's variant": "MS-Mix (release)"}
    assert len(rows) == 7
    for name, *values in rows:
        if name in own:
            config = planned("real", "msmix-t1")["LMF", own[name]]
        else:
            beta, variant = float(name.split("= ")[1]), "release" if "release" in name else None
            (config,) = [c for c in candidates("lmf", "msmix") if len(runs()[c]) == 5 and (p := runs()[c][0][0]["mixer_params"])
                         and p.get("beta") == beta and p.get("variant") == variant]
        if "beta" in name:
            assert runs()[config][0][0]["mixer_params"]["beta"] == float(re.findall(r"beta = (\d+)", name)[0])
        expected = [said(of(config, m, split, scale), digits) for split in ("valid", "test")
                    for m, scale, digits in (("mae", 1, 3), ("avg", 100, 2))]
        assert values == expected, name


def test_what_the_alignment_loss_weighs():
    """"17 to 19 at batch 64 (LMF), 48 at batch 16 (Self-MM) beside a task loss of 0.8 to 1.0, 77 % of the gradient"; TFN's
    24 to 26 beside 0.6 to 0.7, 85 to 89 %; and how many pairs pass (bench/mixers/msmix.py)."""
    def means(config: str, seeds: str) -> pd.DataFrame:
        return pd.DataFrame([pd.read_csv(p).mean() for p in REFERENCE.glob(f"mosi/*/{config}-s{seeds}/history.csv")])

    printed = planned("real", "msmix-t1")["LMF", "MS-Mix"]
    (of_self_mm,) = candidates("self_mm", "msmix")
    lmf, self_mm = means(printed, "111?"), means(of_self_mm, "1111")
    assert (len(lmf), len(self_mm)) == (5, 1) and runs()[of_self_mm][0][0]["train"]["batch_size"] == 16
    assert sorted(lmf["train_alignment"].round())[::4] == [17, 19] and round(self_mm["train_alignment"].item()) == 48
    assert all(0.8 <= round(v, 1) <= 1.0 for v in [*lmf["train_task"], *self_mm["train_task"]])
    assert round(100 * means(printed, "101")["alignment_gradient_share"].item()) == 77
    tfn = means(planned("real", "msmix-t1")["TFN", "MS-Mix"], "111?")
    ends = {c: (tfn[c].min(), tfn[c].max()) for c in tfn}
    assert len(tfn) == 5 and [round(v) for v in ends["train_alignment"]] == [24, 26]
    assert [round(v, 1) for v in ends["train_task"]] == [0.6, 0.7]
    assert [round(100 * v) for v in ends["alignment_gradient_share"]] == [85, 89]
    passing = [f"{f['train_mix_pairs_passing'].mean():.4f}" for f in (tfn, means(printed, "101"))]
    assert round(float(passing[0]), 2) == 0.97 and passing[1] == "0.9996"
    first = pd.read_csv(ROOT / "benchmarks" / "mult_pairs.csv")  # history.csv of MulT + MS-Mix, seed 1111, --set train.max_epochs=1
    assert len(first) == 1 and f"{first['train_mix_pairs_passing'].item():.3f}" == "0.995"


def test_missing_modalities():
    head, *rows = tables()["Missing modalities: MMIN"]
    jobs = {f"{j['corruption']['rate']:g}": m["test"] for c in candidates("mmin", "none") for j, m in runs()[c]
            if j["corruption"].get("kind") == "missing"}
    for name, *values in rows:
        key = {"non-0 Acc2 (%)": "non0_acc2", "Acc7 (%)": "acc7"}[name]
        assert values == [f"{100 * jobs[rate][key]:.1f}" for rate in head[1:]]


def test_against_mmsa():
    """From the seeds of benchmarks/mmsa_seeds.json: Welch's test over all runs and over those that learned (Corr 0.4 or
    more), Holm's correction over the eight metrics."""
    raw = json.loads((ROOT / "benchmarks" / "mmsa_seeds.json").read_text())
    ours, theirs = (pd.DataFrame(raw[who]) for who in ("ours", "theirs"))
    good = [f[f["corr"] >= 0.4] for f in (ours, theirs)]
    metrics = [m for m in raw["metrics"] if m != "epochs"]
    compared = {m: stats.ttest_ind(good[0][m], good[1][m], equal_var=False) for m in metrics}
    smallest = sorted(metrics, key=lambda m: compared[m].pvalue)
    holm = np.maximum.accumulate([min(1, (len(metrics) - k) * compared[m].pvalue) for k, m in enumerate(smallest)])
    head, *rows = tables()["Against MMSA on the same file"]
    assert len(metrics) == 8 and "18 that learned" in head[4] and "19 that learned" in head[5]
    assert [len(f) for f in (ours, theirs, *good)] == [20, 20, 18, 19]
    keys = {"MAE": "mae", "Corr": "corr", "non-0 Acc2": "non0_acc2", "Acc5": "acc5", "Acc7": "acc7"}
    for name, *values, printed_holm in rows:
        m = keys[name]
        low, high = compared[m].confidence_interval()
        difference = f"{good[0][m].mean() - good[1][m].mean():+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "\u2212")
        means = [said(f[m].to_numpy(), 3) for f in (ours, theirs, *good)]
        assert [*values[:2], *values[3:6]] == [*means, difference], name
        p = (stats.ttest_ind(ours[m], theirs[m], equal_var=False).pvalue, compared[m].pvalue, holm[smallest.index(m)])
        for text, value in zip((values[2], values[6], printed_holm), p, strict=True):
            assert float(text) == round(value, len(text.partition(".")[2])), (name, text, value)
