"""t-SNE of latents, and how well the signs of the labels are apart before the projection (MS-Mix Fig. 3, SLaD Fig. 5).

The numbers are of the representation itself, never of the picture: t-SNE keeps neighbours, not distances.
Settings: modality, split, perplexities, pca, neighbours, seed; originals and mixed (rows of each) where mixtures are
drawn beside the originals. Shapes: n rows, D width.
"""

import numpy as np
import torch

from bench.measure.latents import mixtures, representation, representations
from bench.measure.spec import Values
from bench.measure.trained import Trained
from bench.seeds import FIELD_SEEDS


def silhouette(x: np.ndarray, sign: np.ndarray) -> float:
    """Mean silhouette of two classes, Euclidean; NaN where a class has fewer than two rows. x [n, D], sign [n]."""
    from sklearn.metrics import silhouette_score

    if min((sign > 0).sum(), (sign < 0).sum()) < 2:
        return float("nan")
    return float(silhouette_score(x, sign))


def knn_accuracy(x: np.ndarray, sign: np.ndarray, k: int) -> float:
    """Share of rows whose sign is that of the majority of their k nearest other rows; a tie counts half. NaN where
    there are not more than k rows."""
    from sklearn.neighbors import NearestNeighbors

    if len(x) <= k:
        return float("nan")
    near = NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)  # (n, k), without the row itself
    votes = sign[near].sum(1) * sign
    return float(np.mean(np.where(votes == 0, 0.5, votes > 0)))


def separation(x: np.ndarray, label: np.ndarray, k: int) -> dict[str, float]:
    """Silhouette and k-nearest-neighbour accuracy of the sign of the label; rows of label 0 have none and are left out."""
    polar = label != 0
    x, sign = x[polar], np.sign(label[polar])
    return {"silhouette": silhouette(x, sign), "knn_accuracy": knn_accuracy(x, sign, k)}


def embed(x: np.ndarray, perplexity: float, pca: int, seed: int) -> np.ndarray:
    """t-SNE [n, 2] float32 of x [n, D]: of its first `pca` principal components, started from the first two of them.
    The perplexity is at most a third of the rows."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = PCA(min(pca, *x.shape), svd_solver="full").fit_transform(x)
    project = TSNE(perplexity=min(perplexity, (len(x) - 1) / 3), init="pca", learning_rate="auto", random_state=seed)
    return project.fit_transform(x).astype(np.float32)


def compute(t: Trained, settings: dict) -> Values:
    """Numbers for every seed; the embeddings for the first seed alone, whose picture is drawn."""
    split, name, seed = settings["split"], settings["modality"], settings["seed"]
    rows = t.rows(split, settings.get("originals"), seed)
    x = representations(t, split, [name], rows)[name].cpu().numpy().astype(np.float64)
    label = t.data.labels(split)[rows.cpu().numpy()].astype(np.float32)
    mixed = np.zeros(len(x), bool)
    if settings.get("mixed"):
        generated, targets = _generated(t, split, name, settings["mixed"], seed)
        x, label = np.concatenate([x, generated]), np.concatenate([label, targets])
        mixed = np.arange(len(x)) >= len(mixed)
    k = settings["neighbours"]
    numbers = separation(x, label, k)
    if mixed.any():
        for tail, part in (("original", ~mixed), ("mixed", mixed)):
            numbers |= {f"{key}_{tail}": v for key, v in separation(x[part], label[part], k).items()}
    arrays = {"label": label, "mixed": mixed}
    if t.job.seed == FIELD_SEEDS[0]:
        arrays |= {f"embedding_{p:g}": embed(x, p, settings["pca"], seed) for p in settings["perplexities"]}
    return numbers, arrays


def _generated(t: Trained, split: str, name: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` mixed rows [count, D] and their labels [count] out of the first batches of an epoch that hold twice as
    many, or all there are."""
    x, y, held = [], [], 0
    for m in mixtures(t, split, seed):
        x.append(representation(m.latents, name).cpu())
        y.append(m.targets.float().cpu())
        held += len(y[-1])
        if held >= 2 * count:
            break
    chosen = np.sort(np.random.default_rng(seed).permutation(held)[:count])
    return torch.cat(x).numpy()[chosen].astype(np.float64), torch.cat(y).numpy()[chosen]
