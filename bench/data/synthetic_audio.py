"""Generated raw sound: label.csv beside wav/VIDEO/CLIP.wav, the clips and words of synthetic.py.

A voice is a square tone over noise, whose pitch rises with the mood during a third of the clip; pitch survives the
normalisation that models apply to a wave, loudness would not. A file synthetic.json marks the folder as generated and
says how many samples a wave is padded to: 96,000 at the full size, 8,000 (half a second) at the small one.
"""

import csv
import json
import wave
from pathlib import Path

import numpy as np

from bench.data.audio import MARK
from bench.data.spec import SPLITS, DatasetSpec
from bench.data.synthetic import Size, clips, own_label, stream, transcripts
from bench.data.waves import RATE, SAMPLES

GENERATOR = 1  # version of everything below

SMALL = 8_000  # samples of a small wave
_HEAD = ("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode")
_PERIOD, _RISE = 120, 25  # samples of a period (133 Hz), and how many of them a mood of 1 takes away
_LOUDNESS, _NOISE = 3000.0, 1500.0  # of 32,768


def audio_folder(path: Path, spec: DatasetSpec, size: Size, full: bool, seed: int = 0) -> None:
    """Write a table at `path`, the mark and the wav folder beside it."""
    samples, rows = SAMPLES if full else SMALL, []
    mark = {"generator": GENERATOR, "seed": seed, "samples": samples}
    (path.parent / MARK).write_text(json.dumps(mark), encoding="utf-8")
    for split in SPLITS:
        labels, own, ids = clips(spec, size.samples[split], split, seed)
        texts = transcripts(own["text"], size.text, 1, spec.name, split, seed)["raw_text"].tolist()
        single = {m: own_label(own[m], spec.label_bound) for m in ("text", "audio", "vision")} if spec.unimodal else {}
        rng = stream(spec.name, split, "sound", seed)
        for i, name in enumerate(ids):
            video, clip = name.split("$_$")
            most = samples * 3 // 2 if full else samples  # some full-sized clips are longer than what is read
            voice = _voice(own["audio"][i], most, spec.recipe.strength[0], rng)
            _write_wave(path.parent / "wav" / video / f"{clip}.wav", voice)
            annotation = ("Negative", "Neutral", "Positive")[int(np.sign(labels[i])) + 1]
            cells = [f"{v[i]:.6g}" for v in single.values()] or [""] * 3
            rows.append([video, clip, texts[i], f"{labels[i]:.6g}", *cells, annotation, split])
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_HEAD, *rows])


def _voice(u: float, most: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A clip's sound [40 % to 100 % of `most`] int16."""
    n = most * int(rng.integers(40, 101)) // 100
    mood = min(max(strength * u + rng.standard_normal(), -3.0), 3.0)  # mostly not about the sentiment
    time, start = np.arange(n), n * int(rng.integers(0, 67)) // 100
    shows = (time >= start) & (time <= start + n // 3)
    period = np.where(shows, _PERIOD - int(_RISE * mood), _PERIOD)
    tone = np.where((time // (period // 2)) % 2 == 0, _LOUDNESS, -_LOUDNESS)
    return (tone + _NOISE * rng.standard_normal(n)).astype(np.int16)


def _write_wave(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
