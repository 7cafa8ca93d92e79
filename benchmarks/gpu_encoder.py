"""Fine-tuning a text encoder on a GPU: its time of a step, alone and in company."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.train.engine import choose
from benchmarks.gpu_run import Run
from benchmarks.gpu_speed import timed


def encoder(run: Run) -> dict[str, Any]:
    """A text encoder of BERT-base's size, random weights, sentences of 48 word pieces, dropout, forward, backward, AdamW,
    bf16: eagerly and as graphs at batch 32, in company, and at batch 128. `share_of_matmul_rate`: of the rate measured
    by the part machine."""
    length = 16 if run.tiny else 48
    found: dict[str, Any] = {"word_pieces": length}
    for batch, size in ((32, 1),) if run.tiny else ((32, 1), (32, 2), (32, 4), (32, 8), (128, 1)):
        name = f"batch {batch}, {size} at once"
        if run.left < 10 and not run.tiny:
            found[name] = {"skipped": "out of time"}
            continue
        run.clean()
        found[name] = _at_once(run, batch, length, size)
        run.keep(found)
    return found


def _at_once(run: Run, batch: int, length: int, size: int) -> dict[str, Any]:
    steps = []
    for _ in range(size):
        model = bert(run)
        steps.append((choose("auto", run.device), encoder_step(run, model, batch, length)))
        steps[-1][0].parameters = list(model.parameters())

    def all_steps() -> None:
        for engine, step in steps:
            with engine.context():
                engine.run(("encoder step",), step)

    found: dict[str, Any] = {}
    if size == 1:
        found["eager_ms"] = round(1e3 * timed(run, steps[0][1], 0.3), 3)
    each = timed(run, all_steps, 0.3 if run.tiny else 1.0) / size
    weights = sum(q.numel() for n, q in model.named_parameters() if q.ndim == 2 and "embeddings" not in n)
    config = model.config
    flops = 6 * batch * length * (weights + 2 * length * config.hidden_size * config.num_hidden_layers)
    found |= {
        "ms": round(1e3 * each, 3), "reason": steps[0][0].reason, "tflops": round(flops / each / 1e12, 4),
        "sentences_per_s": round(batch / each, 1), "memory_mb": run.memory_mb(),
    }
    rate = run.found.get("machine", {}).get("matmul_tflops_bfloat16")
    return found | ({"share_of_matmul_rate": round(flops / each / 1e12 / rate, 3)} if rate else {})


def bert(run: Run) -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if run.tiny else {}
    return BertModel(BertConfig(**sizes), add_pooling_layer=False).to(run.device).train()


def encoder_step(run: Run, model: nn.Module, batch: int, length: int) -> Callable[[], None]:
    ids = torch.randint(1000, 20000, (batch, length), device=run.device)
    mask = torch.ones(batch, 1, 1, length, dtype=torch.bool, device=run.device)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5, fused=True, capturable=run.cuda)

    def step() -> None:
        with torch.autocast(run.device.split(":")[0], torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step
