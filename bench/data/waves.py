"""Wav files as SLaD reads them: 16 kHz, mono, 16 bit, 6 s at most."""

import math
import warnings
from pathlib import Path

import numpy as np

from bench.errors import DataError

RATE = 16_000  # Hz
SAMPLES = 6 * RATE  # 96,000
FULL_SCALE = 32768.0


def read_wave(path: Path, samples: int = SAMPLES) -> np.ndarray:
    """The first `samples` samples at 16 kHz, [<= samples] int16. Raises DataError, in one line."""
    from scipy.io import wavfile  # here, because plans look data up and read no sound
    from scipy.signal import resample_poly

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of notes that editors leave
            rate, wave = wavfile.read(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{path}: not a wav file ({' '.join(str(error).split()) or type(error).__name__})") from None
    if wave.ndim == 1 and rate == RATE and wave.dtype == np.int16:
        return wave[:samples]
    wave = _unit(wave)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if not np.isfinite(wave).all():
        raise DataError(f"{path}: holds values that are not finite")
    if rate != RATE and len(wave):
        shared = math.gcd(rate, RATE)
        enough = wave[: math.ceil((samples + RATE) * rate / RATE)]  # a second more than is kept: no edge in what is
        wave = resample_poly(enough, RATE // shared, rate // shared)
    return np.clip(np.rint(wave[:samples] * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _unit(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1], float64, whatever they are stored as."""
    if wave.dtype.kind == "f":
        return wave.astype(np.float64)
    if wave.dtype == np.uint8:
        return (wave.astype(np.float64) - 128) / 128
    return wave.astype(np.float64) / -float(np.iinfo(wave.dtype).min)
