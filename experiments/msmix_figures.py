"""MS-Mix (paper 000): figures. The text gives few of their axis values; the grids below are ours."""

from bench.experiments.common import columns, computed, config
from bench.experiments.msmix import METHODS, NOTES, PAPER, dataset_columns
from bench.matrix import Experiment, Row

# ours, but for the defaults 0.2, (0.7, 0.5), 2.0, 4 and 6 (Sec. 4.3) and the ratios 10 % and 20 % (Sec. 4.7)
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # delta, Fig. 5(a)
WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)  # xi_1 and xi_2, Fig. 5(b)
SHAPES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # alpha, Fig. 5(c)
HEADS = (1, 2, 4, 6, 8)  # h, Fig. 5(d)
OCCLUSION = (0.0, 0.1, 0.2, 0.3, 0.4)  # Fig. 6: "from 0 to 40 %"
# the first of the perplexities is drawn; docs/figures.md explains the settings
TSNE = {"perplexities": [30, 10], "originals": 1000, "mixed": 1000, "split": "train", "pca": 50, "neighbours": 10,
        "seed": 0}
LANDSCAPE = {"normalise": "filter", "vectors": "fixed", "range": [-1.0, 1.0], "points": 25, "samples": 1024,
             "split": "test", "loss": "task", "radius": 0.5, "step": 0.1, "seed": 0}
LABELS = {"split": "train", "bins": 61, "range": [-3.0, 3.0], "smoothing": 0.01, "seed": 0}

_DATASETS = ("mosi", "mosei", "sims")


def _methods(backbone: str, b: str, dataset: str, methods: tuple[str, ...]) -> tuple[Row, ...]:
    return tuple(
        Row(backbone=backbone, method=m, block=backbone, cells={dataset.upper(): config(PAPER, b, dataset, METHODS[m])},
            baseline={"plain": "plain", "MS-Mix": "proposed"}.get(m, ""))
        for m in methods
    )


def figure1() -> Experiment:
    """MS-Mix Figure 1, right: labels that the mixers generate on MOSEI, against the real ones.

    Claim: labels mixed by MS-Mix are closer to the original distribution than Manifold Mix's.
    Expected: a smaller KL divergence of MS-Mix; the text prints none.
    Cost: 10 runs, none new.
    Command: bench run msmix-f1 --suite paper --data DIR
    """
    return Experiment(
        id="msmix-f1", paper=PAPER, title="Label distributions on MOSEI", kind="figure",
        rows=_methods("MISA", "misa", "mosei", ("Manifold Mix", "MS-Mix")), seeds=5, primary="kl",
        columns=computed("MOSEI", {"kl": "KL divergence"}), family="MS-Mix against Manifold Mix, on the KL divergence.",
        figure={
            "kind": "density", "metrics": ["kl"], "computed": ["kl"],
            "panels": [{"title": "labels", "rows": {}, "group": "MOSEI", "x": "label", "lines": "method"}],
            "settings": LABELS,
        },
        notes=(*NOTES, "The backbone is not stated: MISA (ours). The split, the bins and the smoothing of KL are ours. The "
               "left half of the figure is a diagram. The picture is of the first seed, the divergence of all five."),
    )


def figure3() -> Experiment:
    """MS-Mix Figure 3: t-SNE of original and mixed text features, MISA on MOSEI, with MS-Mix (a) and PowMix (b).

    Claim: features mixed by MS-Mix separate the signs more clearly than PowMix's.
    Expected: a higher silhouette score of the sign for MS-Mix; the text prints none.
    Cost: 10 runs, none new.
    Command: bench run msmix-f3 --suite paper --data DIR
    """
    return Experiment(
        id="msmix-f3", paper=PAPER, title="t-SNE of original and mixed text features", kind="figure",
        rows=_methods("MISA", "misa", "mosei", ("MS-Mix", "PowMix")), seeds=5, primary="silhouette",
        columns=computed("MOSEI", {"silhouette": "silhouette"}), family="MS-Mix against PowMix, on the silhouette.",
        figure={
            "kind": "tsne", "metrics": ["silhouette"], "computed": ["silhouette"], "settings": TSNE,
            "panels": [
                {"title": f"({tag}) {m}", "rows": {"method": m}, "group": "MOSEI", "modality": "text",
                 "colour": "sign of the label", "transparency": "original or mixed"}
                for tag, m in (("a", "MS-Mix"), ("b", "PowMix"))
            ],
        },
        notes=(*NOTES, "Perplexity, number of points and split are not stated (ours). The picture is of the first "
                       "seed, the score of all five."),
    )


def figure4() -> Experiment:
    """MS-Mix Figure 4: loss landscapes of ALMT on MOSEI, one per method.

    Claim: MS-Mix has the flattest landscape; the other mixers smooth it somewhat.
    Expected: the smallest mean rise over the centre for MS-Mix; the text prints no number.
    Cost: 30 runs, none new; a landscape takes 625 evaluations of 1,024 samples.
    Command: bench run msmix-f4 --suite paper --data DIR
    """
    return Experiment(
        id="msmix-f4", paper=PAPER, title="Loss landscapes", kind="figure", seeds=5, primary="loss_rise",
        rows=_methods("ALMT", "almt", "mosei", tuple(METHODS)),
        columns=computed("MOSEI", {"loss_rise": "mean rise", "rise_at_radius": "rise at radius 0.5"}),
        family="MS-Mix against every other method, on the mean rise.",
        figure={
            "kind": "landscape", "metrics": ["loss_rise"], "computed": ["loss_rise", "rise_at_radius"],
            "settings": LANDSCAPE,
            "panels": [{"title": m, "rows": {"method": m}, "group": "MOSEI"} for m in METHODS],
        },
        notes=(*NOTES, "The directions are the paper's; filter normalisation, range, number of points, loss and the "
                       "test subset are ours, and the same for all methods. Which variants are shown is not stated: "
                       "all six rows of Table 2 (ours). The picture is of the first seed, the rise over the centre of "
                       "all five."),
    )


def figure5() -> Experiment:
    """MS-Mix Figure 5: sensitivity to the threshold (a), the loss weights (b), the Beta shape (c), the heads (d).

    Claim: accuracy peaks at delta = 0.2, (xi_1, xi_2) = (0.7, 0.5), alpha = 2.0, h = 4 on MOSEI and 6 on CH-SIMS; every
    threshold stays above Manifold Mix.
    Expected: the peaks at these settings; the text prints no accuracy.
    Cost: 235 runs, 215 new; about 544 GPU-minutes.
    Command: bench run msmix-f5 --suite paper --data DIR
    """
    def row(backbone: str, b: str, variant: str, x: float, mixing: dict, datasets: tuple[str, ...] = ("mosei",)) -> Row:
        cells = {d.upper(): config(PAPER, b, d, "msmix", mixing=mixing) for d in datasets}
        return Row(backbone=backbone, method="MS-Mix", variant=variant, cells=cells, block=variant.split("=")[0], x=x)

    rows = [row("MISA", "misa", f"delta={v}", v, {"delta": v}) for v in THRESHOLDS]
    rows += [
        row("GLoMo", "glomo", f"xi_1={p}, xi_2={q}", p, {"xi1": p, "xi2": q}) for p in WEIGHTS for q in WEIGHTS
    ]
    rows += [row("MISA", "misa", f"alpha={v}", v, {"alpha": v}) for v in SHAPES]
    rows += [row("MISA", "misa", f"h={v}", v, {"heads": v}, ("mosei", "sims")) for v in HEADS]
    manifold = config(PAPER, "misa", "mosei", "manifold")
    level = Row(backbone="MISA", method="Manifold Mix", block="delta", cells={"MOSEI": manifold})
    sims = columns("sims", "SIMS", {"acc2": "ACC2 (%)", "mae": "MAE"})
    return Experiment(
        id="msmix-f5", paper=PAPER, title="Sensitivity of MS-Mix to its parameters", kind="figure", seeds=5,
        columns=(*dataset_columns("mosei"), *sims), rows=(*rows, level),
        figure={
            "kind": "line", "metrics": ["non0_acc2", "acc2"],
            "panels": [
                {"title": "(a) similarity threshold", "rows": {"variant": "delta=*"}, "group": "MOSEI", "x": "delta",
                 "default": 0.2, "reference": {"method": "Manifold Mix"}},
                {"title": "(b) loss weights", "kind": "heatmap", "rows": {"variant": "xi_1=*"}, "group": "MOSEI",
                 "x": "xi_1", "y": "xi_2", "values": list(WEIGHTS), "default": [0.7, 0.5]},
                {"title": "(c) Beta shape", "rows": {"variant": "alpha=*"}, "group": "MOSEI", "x": "alpha",
                 "default": 2.0},
                {"title": "(d) heads, MOSEI", "rows": {"variant": "h=*"}, "group": "MOSEI", "x": "h", "default": 4},
                {"title": "(d) heads, CH-SIMS", "rows": {"variant": "h=*"}, "group": "SIMS", "x": "h", "default": 6},
            ],
        },
        notes=(*NOTES, "Axis values (ours): " + "; ".join((
            f"delta {_list(THRESHOLDS)}", f"xi_1 and xi_2 {_list(WEIGHTS)}", f"alpha {_list(SHAPES)}",
            f"h {_list(HEADS)}",
        )) + ". \"Accuracy\" is w-ACC2 (ours; ACC2 on CH-SIMS). The model of panel (d) is not stated: MISA (ours)."),
    )


def figure6() -> Experiment:
    """MS-Mix Figure 6: random occlusion of the training inputs, LMF on three datasets.

    Claim: 10 or 20 % masking helps, more hurts; MS-Mix has the highest accuracy on average over the ratios.
    Expected: the order of the averages; the text prints no accuracy.
    Cost: 375 runs, 300 new; about 26 GPU-minutes.
    Command: bench run msmix-f6 --suite paper --data DIR
    """
    methods = ("plain", "Manifold Mix", "MultiMix", "PowMix", "MS-Mix")

    def cells(method: str, ratio: float) -> dict:
        masked = {"kind": "occlusion", "rate": ratio} if ratio else {}
        return {d.upper(): config(PAPER, "lmf", d, METHODS[method], corruption=masked) for d in _DATASETS}

    return Experiment(
        id="msmix-f6", paper=PAPER, title="Random occlusion of the training inputs", kind="figure", seeds=5,
        columns=tuple(c for d in _DATASETS for c in dataset_columns(d)), primary="avg",
        family="MS-Mix against every other method at each ratio, over ratios and datasets, on Avg.",
        rows=tuple(
            Row(backbone="LMF", method=m, variant=f"ratio={r}", x=r, block=f"ratio={r}", cells=cells(m, r),
                baseline={"plain": "plain", "MS-Mix": "proposed"}.get(m, ""))
            for r in OCCLUSION for m in methods
        ),
        figure={
            "kind": "line", "metrics": ["non0_acc2", "acc2"],
            "panels": [
                {"title": d.upper(), "rows": {"method": [m for m in methods if m != "plain"]}, "group": d.upper(),
                 "x": "occlusion ratio", "lines": "method", "thin": {"method": "plain"}, "split": True}
                for d in _DATASETS
            ],
        },
        notes=(*NOTES, f"Ratios {_list(OCCLUSION)} (step ours). What is masked is not stated: random frames of each "
               "modality independently (ours). The inputs are masked in training only, as \"during training\" says; "
               "validation and test are clean (ours). The plain row is ours."),
    )


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)


EXPERIMENTS = (figure1, figure3, figure4, figure5, figure6)
