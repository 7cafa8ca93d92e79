"""Wav files as SLaD reads them: 16 kHz, mono, 16 bit, 6 s at most."""

import math
import struct
import warnings
from pathlib import Path

import numpy as np

from bench.data.unpickle import regular
from bench.errors import DataError, TransientDataError

RATE = 16_000  # Hz
SAMPLES = 6 * RATE  # 96,000
FULL_SCALE = 32768.0
RATES = (1_000, 384_000)  # Hz, of any recording
_UNKNOWN = (0xFFFFFFFF, 0x7FFFFFFF, 0)  # lengths that writers to a pipe leave behind
_LARGEST = 1 << 28  # bytes of a clip's file
_TAPS = 50_000  # the steps of a change of rate, at most: beyond, its filter is larger than the sound


def read_wave(path: Path, samples: int = SAMPLES) -> np.ndarray:
    """The first `samples` samples at 16 kHz, [<= samples] int16. Raises DataError, in one line."""
    from scipy.io import wavfile  # here, because plans look data up and read no sound
    from scipy.signal import resample_poly

    try:
        check_header(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of notes that editors leave
            rate, wave = wavfile.read(path)
    except DataError:
        raise
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{path}: not a wav file ({' '.join(str(error).split()) or type(error).__name__})") from None
    if wave.ndim == 1 and rate == RATE and wave.dtype == np.int16:
        return wave[:samples]
    enough = math.ceil((samples + RATE) * rate / RATE)  # a second more than is kept: no edge in what is
    wave = _unit(wave[:enough])
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if not np.isfinite(wave).all():
        raise DataError(f"{path}: holds values that are not finite")
    if rate != RATE and len(wave):
        shared = math.gcd(rate, RATE)
        if max(rate, RATE) // shared > _TAPS:
            raise DataError(f"{path}: a rate of {rate} Hz cannot be turned into {RATE}; resample it to {RATE} Hz")
        wave = resample_poly(wave, RATE // shared, rate // shared)
    return np.clip(np.rint(wave[:samples] * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def check_header(path: Path) -> None:
    """Raises DataError for a file that is no wav, was cut short, or says of itself what no recording is; OSError if it
    cannot be read."""
    size = regular(path)
    if size > _LARGEST:
        raise DataError(f"{path}: {size >> 20:,} MiB of sound are no clip; cut it to the clip's seconds")
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:12] != b"WAVE":
            what = "it is empty" if not size else f"it starts with {head[:4]!r}"
            raise DataError(f"{path}: not a wav file ({what}); convert it to 16 kHz wav")
        order = ">" if head[:4] == b"RIFX" else "<"
        rate = None
        while len(chunk := file.read(8)) == 8:
            name, length = chunk[:4], struct.unpack(order + "I", chunk[4:])[0]
            left = size - file.tell()
            if name == b"fmt ":
                given = file.read(16)
                if len(given) < 16:
                    break
                _, channels, rate, _, _, bits = struct.unpack(order + "HHIIHH", given)
                if not RATES[0] <= rate <= RATES[1] or not 1 <= channels <= 64 or not 1 <= bits <= 64:
                    told = f"a rate of {rate} Hz, {channels} channels, {bits} bits"
                    raise DataError(f"{path}: says that it has {told}; no recording has")
                file.seek(length - 16 + length % 2, 1)
            elif name == b"data":
                if rate is None:
                    break
                if length > left and not (length in _UNKNOWN or head[:4] == b"RF64"):
                    raise DataError(f"{path}: cut short: {left:,} of {length:,} bytes of sound; copy it again")
                return
            else:
                file.seek(length + length % 2, 1)
        raise DataError(f"{path}: cut short: it ends before its sound; copy it again")


def _unit(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1], float64, whatever they are stored as."""
    if wave.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # a NaN is refused later
            return wave.astype(np.float64)
    if wave.dtype == np.uint8:
        return (wave.astype(np.float64) - 128) / 128
    return wave.astype(np.float64) / -float(np.iinfo(wave.dtype).min)
