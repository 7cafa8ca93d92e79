"""Shared test helpers: where the optional shared folder is, and small configs."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with papers, parity fixtures and real data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (papers, fixtures, real data), which is not here")
    return SHARED


@pytest.fixture(scope="module")
def no_fsync():
    """Hundreds of small files: flushing each to disk is not what is tested there."""
    real, os.fsync = os.fsync, lambda _: None
    yield
    os.fsync = real
