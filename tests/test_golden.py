"""No cell's numbers change without a VERSION bump."""

import json

import pytest

from tests.golden import PATH, cells, short_run, versions

GOLDEN = json.loads(PATH.read_text()) if PATH.exists() else {}


@pytest.mark.parametrize(("backbone", "mixer"), cells())
def test_short_run_losses_are_pinned(backbone, mixer):
    golden = GOLDEN.get(f"{backbone}+{mixer}")
    assert golden, f"{backbone}+{mixer} has no golden losses; run `python -m tests.golden`"
    assert golden["versions"] == versions(backbone, mixer), "a VERSION changed: run `python -m tests.golden`"
    now = short_run(backbone, mixer)
    assert now == pytest.approx(golden["losses"], rel=2e-4), (
        f"{backbone}+{mixer} gives other numbers than before: bump the VERSION of what changed, then run `python -m tests.golden`"
    )
