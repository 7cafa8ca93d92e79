"""Self-MM's unimodal label generation (Yu et al., 2021, Sec. 3.4) as M-SENA runs it.

For every training sample the memory keeps four labels (multimodal M and one per modality) and four feature vectors,
and for each task a positive and a negative centre: the mean feature over the whole table of the samples whose current
label of that task is positive, or negative. From epoch 2 on a sample's unimodal labels move with its distances to the
centres. All of it is state of the training, none of it is in the state dict; epochs count from 1.

Choices:
- The labels of the whole training set are not handed over at once: a sample's labels are M's when it is first seen.
  As an epoch shows every sample, labels and centres are the reference's from the end of epoch 1 on, which is where
  they are first used. `fill` sets all labels at once.
- A class without samples has its centre at zero (NaN in the reference).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

FUSION = "fusion"


class LabelMemory(nn.Module):
    """Labels, features and centres of `size` samples; `dims`: task -> feature width, "fusion" among them.

    exclude_zero: a label of 0 belongs to neither class; otherwise it is positive.
    """

    def __init__(self, size: int, dims: Mapping[str, int], bound: float, exclude_zero: bool = True) -> None:
        super().__init__()
        self.bound = bound  # H
        self.exclude_zero = exclude_zero
        self.tasks = tuple(dims)
        self.unimodal = tuple(t for t in dims if t != FUSION)

        def state(name: str, *shape: int) -> None:
            self.register_buffer(name, torch.zeros(shape), persistent=False)

        state("epoch")
        state("seen", size)
        for task, d in dims.items():
            state(f"label_{task}", size)
            state(f"feature_{task}", size, d)
            state(f"positive_{task}", d)
            state(f"negative_{task}", d)

    def get(self, kind: str, task: str) -> Tensor:
        """A table: kind "label" [N], "feature" [N, d], "positive" or "negative" [d]."""
        return self.get_buffer(f"{kind}_{task}")

    def start_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def fill(self, labels: Tensor) -> None:
        """Set all labels of all tasks to the multimodal labels [N]."""
        for task in self.tasks:
            self.get("label", task).copy_(labels)
        self.seen.fill_(1.0)

    def labels(self, task: str, index: Tensor, multimodal: Tensor) -> Tensor:
        """Current labels [B] of a task for the samples `index` [B]; `multimodal` [B] where never seen."""
        known = self.seen[index] > 0
        return torch.where(known, self.get("label", task)[index], multimodal)

    def losses(self, index: Tensor, multimodal: Tensor, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Unimodal terms, task -> mean of tanh|y_s - y_m| |prediction - y_s|, of predictions [B] by task."""
        found = {}
        for task, prediction in predictions.items():
            target = self.labels(task, index, multimodal)
            found[task] = ((target - multimodal).abs().tanh() * (prediction - target).abs()).mean()
        return found

    @torch.no_grad()
    def update(self, index: Tensor, multimodal: Tensor, features: Mapping[str, Tensor]) -> None:
        """One batch: new unimodal labels from the present centres, then features, then centres.

        index, multimodal [B]; features: task -> [B, d].
        """
        labels = {task: self.labels(task, index, multimodal) for task in self.tasks}
        shift = self._shift(FUSION, features[FUSION])
        for task in self.unimodal:
            labels[task] = self._moved(labels[task], multimodal, self._shift(task, features[task]), shift)
        self.seen.index_fill_(0, index, 1.0)
        for task in self.tasks:
            for kind, value in (("label", labels[task]), ("feature", features[task])):
                table = self.get(kind, task)
                table.index_copy_(0, index, value.to(table.dtype))
            self._recentre(task)

    def _shift(self, task: str, feature: Tensor) -> Tensor:
        """delta [B]: how much nearer a feature is to the positive than to the negative centre."""
        positive = torch.linalg.vector_norm(feature - self.get("positive", task), dim=1)
        negative = torch.linalg.vector_norm(feature - self.get("negative", task), dim=1)
        return (negative - positive) / (positive + 1e-8)

    def _moved(self, label: Tensor, multimodal: Tensor, shift: Tensor, fusion_shift: Tensor) -> Tensor:
        """Label after one step of the momentum update [B]; unchanged in epoch 1."""
        ratio = shift / (fusion_shift + 1e-8)  # alpha
        new = 0.5 * ratio * multimodal + 0.5 * (multimodal + shift - fusion_shift)
        new = new.clamp(-self.bound, self.bound)
        n = self.epoch
        return torch.where(n > 1, (n - 1) / (n + 1) * label + 2 / (n + 1) * new, label)

    def _recentre(self, task: str) -> None:
        label, feature = self.get("label", task), self.get("feature", task)
        positive = (label > 0 if self.exclude_zero else label >= 0) * self.seen  # (N,)
        negative = (label < 0) * self.seen
        for kind, member in (("positive", positive), ("negative", negative)):
            self.get(kind, task).copy_(member @ feature / member.sum().clamp(min=1))
