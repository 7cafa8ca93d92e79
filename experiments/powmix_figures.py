"""PowMix (paper 001): figures. Axis values that its text does not give are ours."""

from bench.experiments.common import columns
from bench.experiments.powmix import NOTES, PAPER, mosei
from bench.matrix import Experiment, Row

INTERVALS = ((2, 4), (2, 8), (4, 6), (2, 16), (6, 8))  # U(a, b) of Fig. 3, all in the text, best first
MIXED = (16, 32, 64, 128, 256, 512, 1024, 2048)  # n_O of Fig. 4; 2^6 and 2^10 are ours
DROPS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)  # Fig. 6, 7: "from 5 % to 40 %", steps ours
PORTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # Fig. 8; 10 % and 20 % are in the text
POINTS = ((0.0, 0.0), (1.0, 0.1), (1.6, 0.8), (1.3, 1.7), (0.5, 2.0), (-0.3, 1.2), (0.7, 0.9))  # Fig. 2, ours
PROBE = {"lr": 1e-3, "repeats": 3, "seed": 0}  # linear heads of Fig. 5, trained and stopped as the backbone; ours

# Corruptions of the test split alone: measured on the jobs of Table 2, and on further seeds of them.
_NOISES = {
    "f6": ("frame_drop-correlated", "frame_drop-independent"),
    "f7": ("text_drop", "text_mean"),
}
_BOTH = {"non0_acc2": "Acc2", "mae": "MAE"}
_METRICS_NOTE = "The two metrics of the figure are not named: Acc2 and MAE (ours)."
_PAIR = {"plain": "plain", "PowMix": "proposed"}
_MODELS = ("MulT", "Self-MM")  # of Figures 5 to 7


def figure2() -> Experiment:
    """PowMix Figure 2: convex combinations of seven points in the plane; nothing is trained.

    Claim: MixUp interpolates pairs, MultiMix all points; dynamic mixing covers what lies between.
    Expected: 2^12 points per panel inside the convex hull of the seven.
    Cost: none.
    Command: bench report powmix-f2
    """
    return Experiment(
        id="powmix-f2", paper=PAPER, title="What mixing 2, 3, 4 or 7 points generates", kind="figure", seeds=0,
        figure={
            "kind": "illustration", "metrics": [], "points": [list(p) for p in POINTS], "generated": 4096,
            "panels": [{"title": f"n_I = {n}", "mixes": n} for n in (2, 3, 4, 7)], "settings": {"seed": 0},
        },
        notes=("The seven points are ours; the number of generated points is the paper's.",),
    )


def figure3() -> Experiment:
    """PowMix Figure 3: the interval of subset sampling, Self-MM on MOSEI.

    Claim: U(2, 4) is best, then U(2, 8), U(4, 6), U(2, 16), U(6, 8); even the last beats plain Self-MM.
    Expected: this order in both metrics; the text prints no value.
    Cost: 30 runs, 20 new; about 48 GPU-minutes.
    Command: bench run powmix-f3 --suite paper --data DIR
    """
    rows = [
        Row("Self-MM", "PowMix", f"U({a}, {b})", block="Self-MM", x=i, baseline="proposed" if (a, b) == (2, 4) else "",
            cells={"MOSEI": mosei("Self-MM", "PowMix", mixing={"mask_range": (a, b)} if i else {})})
        for i, (a, b) in enumerate(INTERVALS)  # the default first
    ]
    return Experiment(
        id="powmix-f3", paper=PAPER, title="Subset sampling of PowMix", kind="figure", seeds=5,
        columns=columns("msena", "MOSEI", _BOTH), rows=(*rows, _level()), primary="mae",
        family="U(2, 4) against every other interval and the plain backbone, on MAE.",
        figure={"kind": "line", "metrics": list(_BOTH), "panels": [
            {"title": "interval", "rows": {"method": "PowMix"}, "group": "MOSEI", "x": "U(a, b)", "categories": True,
             "default": 0, "reference": {"method": "plain"}},
        ]},
        notes=(*NOTES, _METRICS_NOTE),
    )


def figure4() -> Experiment:
    """PowMix Figure 4: the number of mixed examples, Self-MM on MOSEI.

    Claim: 2^8 is best, 2^7 and 2^9 next, very small and very large numbers help less; all beat plain Self-MM.
    Expected: a peak at 2^8; the text prints no value.
    Cost: 45 runs, 35 new; about 84 GPU-minutes.
    Command: bench run powmix-f4 --suite paper --data DIR
    """
    rows = [
        Row("Self-MM", "PowMix", f"n_O={n}", block="Self-MM", x=n, baseline="proposed" if n == 256 else "",
            cells={"MOSEI": mosei("Self-MM", "PowMix", mixing={"n_mixed": n})})
        for n in MIXED
    ]
    return Experiment(
        id="powmix-f4", paper=PAPER, title="Number of mixed examples", kind="figure", seeds=5,
        columns=columns("msena", "MOSEI", _BOTH), rows=(*rows, _level()), primary="mae",
        family="n_O = 256 against every other number and the plain backbone, on MAE.",
        figure={"kind": "line", "metrics": list(_BOTH), "panels": [
            {"title": "mixed examples", "rows": {"variant": "n_O=*"}, "group": "MOSEI", "x": "n_O", "scale": "log2",
             "default": 256, "reference": {"method": "plain"}},
        ]},
        notes=(*NOTES, "2^6 and 2^10 are ours; the other numbers are in the text.", _METRICS_NOTE),
    )


def figure5() -> Experiment:
    """PowMix Figure 5: linear probes of the unimodal encoders and the fusion network, MulT and Self-MM on MOSEI.

    Claim: PowMix helps MulT's audio and vision probes and its fusion, and Self-MM's text probe and fusion.
    Expected: MulT audio +0.47, vision +1.57, text +0.03, fusion +0.37 Acc2; three repeats.
    Cost: 12 runs, none new; and 36 probes of seconds.
    Command: bench run powmix-f5 --suite paper --data DIR
    """
    rows = [
        Row(b, m, part, block=f"{b} {part}", baseline=_PAIR[m], cells={"MOSEI": mosei(b, m)},
            note="" if part == "F" else "linear probe of the weights of row F")
        for b in _MODELS for part in ("T", "A", "V", "F") for m in _PAIR
    ]
    return Experiment(
        id="powmix-f5", paper=PAPER, title="Unimodal evaluation", kind="figure", seeds=3,
        columns=columns("msena", "MOSEI", _BOTH), rows=tuple(rows),
        figure={
            "kind": "bars", "metrics": list(_BOTH), "computed": list(_BOTH), "settings": PROBE,
            "panels": [
                {"title": b, "rows": {"backbone": b}, "group": "MOSEI", "x": "f_m", "lines": "method",
                 "categories": ["T", "A", "V", "F"], "probed": {"T": "text", "A": "audio", "V": "vision"}}
                for b in _MODELS
            ],
            "printed": [
                {"at": {"backbone": "MulT", "variant": v}, "metric": "non0_acc2", "gain": g, "where": "Sec. 6.3.1"}
                for v, g in (("A", 0.47), ("V", 1.57), ("T", 0.03), ("F", 0.37))
            ] + [
                {"at": {"backbone": "Self-MM", "variant": v}, "metric": "non0_acc2", "gain": g, "where": "Sec. 6.3.1"}
                for v, g in (("T", 0.88), ("F", 0.85))
            ] + [
                {"at": {"backbone": "Self-MM", "method": "plain", "variant": v}, "metric": "non0_acc2", "value": x,
                 "where": "Sec. 6.3.1"}
                for v, x in (("A", 63), ("V", 63), ("T", 83.87))
            ],
        },
        notes=(*NOTES, "A probe is a linear head on one latent with the encoder frozen; how it is trained is not "
                       "stated (ours: the backbone's loss and stop rule, Adam, rate 1e-3). F is the model "
                       "itself.", _METRICS_NOTE),
    )


def figure6() -> Experiment:
    """PowMix Figure 6: robustness to dropped frames at test time, MulT and Self-MM on MOSEI.

    Claim: models trained with PowMix stay above their baselines; the slope is the same; MulT loses less than Self-MM.
    Expected: parallel curves; the text prints no value.
    Cost: 60 runs, 40 new; about 920 GPU-minutes; ten seeds beyond Table 2's, and they answer Figure 7 too.
    Command: bench run powmix-f6 --suite paper --data DIR
    """
    return _noise("f6", "Robustness to noise", "Test frames are dropped with probability p, once at the same places in "
                  "all modalities and once independently; a point is the mean of both.")


def figure7() -> Experiment:
    """PowMix Figure 7: modality dominance, noise on the text alone at test time, MulT and Self-MM on MOSEI.

    Claim: text noise degrades both models strongly; PowMix stays above the baseline at every level.
    Expected: steeper curves than Figure 6; the text prints no value.
    Cost: 60 runs, none new.
    Command: bench run powmix-f7 --suite paper --data DIR
    """
    return _noise("f7", "Modality dominance", "The text of a test sample is dropped with probability p, or replaced by "
                  "the mean of the training set; a point is the mean of both.")


def _noise(tag: str, title: str, how: str) -> Experiment:
    def row(b: str, m: str, p: float) -> Row:
        points = tuple(f"{kind}-{p:.2f}" for kind in _NOISES[tag]) if p else ()
        return Row(b, m, f"p={p}", x=p, block=f"{b} p={p}", baseline=_PAIR[m], points=points,
                   cells={"MOSEI": mosei(b, m)})

    return Experiment(
        id=f"powmix-{tag}", paper=PAPER, title=title, kind="figure", seeds=15, columns=columns("msena", "MOSEI", _BOTH),
        rows=tuple(row(b, m, p) for b in _MODELS for p in (0.0, *DROPS) for m in _PAIR), primary="non0_acc2",
        family="PowMix against plain at every level of noise, over both backbones, on Acc2.",
        figure={"kind": "line", "metrics": list(_BOTH), "panels": [
            {"title": b, "rows": {"backbone": b}, "group": "MOSEI", "x": "p", "lines": "method"} for b in _MODELS
        ]},
        notes=(*NOTES, how, "Levels between 5 % and 40 % and the clean point are ours. \"15 runs\": 15 trainings, one "
               "draw of the noise each (ours).", _METRICS_NOTE),
    )


def figure8() -> Experiment:
    """PowMix Figure 8: limited data, MulT on portions of MOSEI's training set.

    Claim: PowMix stays ahead at every size, most at 10 to 20 % of the data.
    Expected: about 1.21 Acc2 and 0.022 MAE ahead there.
    Cost: 60 runs, 50 new; about 840 GPU-minutes.
    Command: bench run powmix-f8 --suite paper --data DIR
    """
    rows = [
        Row("MulT", m, f"portion={p}", x=p, block=f"portion={p}", baseline=_PAIR[m],
            cells={"MOSEI": mosei("MulT", m, fraction=p)})
        for p in PORTIONS for m in _PAIR
    ]
    return Experiment(
        id="powmix-f8", paper=PAPER, title="Limited data", kind="figure", seeds=5, rows=tuple(rows),
        columns=columns("msena", "MOSEI", _BOTH), primary="non0_acc2",
        family="PowMix against plain at every size, on Acc2.",
        figure={
            "kind": "line", "metrics": list(_BOTH),
            "panels": [{"title": "MulT", "rows": {}, "group": "MOSEI", "x": "share of the data", "lines": "method"}],
            "printed": [
                {"at": {"x": [0.1, 0.2]}, "metric": "non0_acc2", "gain": 1.21, "where": "Sec. 6.3.4"},
                {"at": {"x": [0.1, 0.2]}, "metric": "mae", "gain": 0.022, "where": "Sec. 6.3.4"},
            ],
        },
        notes=(*NOTES, "Portions other than 10 and 20 % are ours. Subsets are drawn once per seed; validation "
               "and test stay complete.", _METRICS_NOTE),
    )


def _level() -> Row:
    return Row("Self-MM", "plain", block="Self-MM", baseline="plain", cells={"MOSEI": mosei("Self-MM", "plain")})


EXPERIMENTS = (figure2, figure3, figure4, figure5, figure6, figure7, figure8)
