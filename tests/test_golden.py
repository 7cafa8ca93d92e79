"""No cell's numbers change without a VERSION bump."""

import pytest

from tests.golden import cells, short_run, stored, versions


@pytest.mark.parametrize(("backbone", "mixer"), cells())
def test_short_run_losses_are_pinned(backbone, mixer):
    golden = stored(backbone).get(mixer)
    assert golden, f"{backbone}+{mixer} has no golden losses; run `python -m tests.golden {backbone}`"
    assert golden["versions"] == versions(backbone, mixer), f"a VERSION changed: run `python -m tests.golden {backbone}`"
    now = short_run(backbone, mixer)
    assert now == pytest.approx(golden["losses"], rel=2e-4), (
        f"{backbone}+{mixer} gives other numbers than before: bump the VERSION of what changed, then run `python -m tests.golden {backbone}`"
    )
