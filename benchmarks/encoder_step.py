"""One training step of MISA on one CPU thread, fine-tuning MiniLM: whole padded text in float32, against stopping at
the longest transcript of the batch, against bf16 autocast, against both.

    python benchmarks/encoder_step.py            # prints a table and writes encoder_step.json beside this file

M-SENA's parameters and batch size for MOSI; 50 word pieces, of which a clip fills 15 on average and at most 50 (log-
normal lengths, as MOSI's); audio one step of 74 numbers, vision 50 of 35. The four ways share one model and must give
the same evaluation-mode predictions (bf16: to its precision) before they are timed; then their steps alternate in one
process. Times are CPU time of the process; the median over the steps is reported. On a CPU without bf16 matrix units
(AMX) the harness does not use autocast, and its rows say what that avoids.
"""

import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.models import misa
from bench.models.base import Inputs
from bench.train.precision import native_bf16

WAYS = {"whole": (True, False), "stopped": (False, False), "whole_bf16": (True, True), "stopped_bf16": (False, True)}
BATCH, PIECES, BATCHES, ROUNDS = 16, 50, 4, 3


def batches(inputs: Inputs) -> list[dict[str, torch.Tensor]]:
    found = []
    for _ in range(BATCHES):
        lengths = (torch.randn(BATCH) * 0.55 + 2.56).exp().round().clamp(4, PIECES).long()  # mean 15
        mask = (torch.arange(PIECES) < lengths[:, None]).long()
        ids = torch.randint(1000, 20000, (BATCH, PIECES)) * mask
        found.append({
            "text_bert": torch.stack([ids, mask, torch.zeros_like(ids)], 1), "label": torch.randn(BATCH),
            "audio": torch.randn(BATCH, *inputs.audio), "vision": torch.randn(BATCH, *inputs.vision),
            "audio_lengths": torch.ones(BATCH).long(), "vision_lengths": lengths,
        })
    return found


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1111)
    inputs = Inputs(text=(PIECES, 0), audio=(1, 74), vision=(PIECES, 35))
    model = misa.Model(misa.Params(encoder="minilm"), inputs)
    data = batches(inputs)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)

    def predict(way: str, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        whole, bf16 = WAYS[way]
        model.reads_padding = whole
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoded = model.encode(batch)
            output = model.fuse(encoded.latents)
            losses = model.aux_losses(batch, encoded, output)
        return output.prediction.float(), sum(losses.values()).float()

    model.eval()
    with torch.no_grad():
        exact = predict("whole", data[0])[0]
        gaps = {way: float((predict(way, data[0])[0] - exact).abs().max()) for way in WAYS}
    assert gaps["stopped"] < 1e-5 and gaps["stopped_bf16"] < 0.1, gaps
    model.train()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for round_ in range(ROUNDS + 1):  # the first warms up
        for batch in data:
            for way in WAYS:
                start = time.process_time()
                prediction, extra = predict(way, batch)
                ((prediction - batch["label"]).square().mean() + extra).backward()
                optimiser.step()
                optimiser.zero_grad()
                if round_:
                    times[way].append(1e3 * (time.process_time() - start))
    row = {way: {"ms": round(statistics.median(t), 1), "steps": len(t), "largest_difference": gaps[way],
                 "speedup": round(statistics.median(times["whole"]) / statistics.median(t), 2)} for way, t in times.items()}
    machine = {"machine": "2-core CPU", "threads": 1, "bf16_units": native_bf16(torch.device("cpu")),
               "torch": torch.__version__, "python": platform.python_version()}
    Path(__file__).with_suffix(".json").write_text(json.dumps({**machine, "ways": row}, indent=2) + "\n")
    for way, r in row.items():
        print(f"{way}: {r['ms']:.0f} ms, {r['speedup']:.2f} times as fast, largest difference {r['largest_difference']:.1g}")


if __name__ == "__main__":
    main()
