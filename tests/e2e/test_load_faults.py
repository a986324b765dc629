"""A load while the model arrives, with some faults at a boundary between tensors; scripts/load-faults has them all."""

from contextlib import AsyncExitStack

import pytest

from scripts.load_faults.cases import FAULTS
from scripts.load_faults.matrix import Matrix, chosen, opened

pytestmark = [pytest.mark.main, pytest.mark.xdist_group("swarm")]

SOME = {
    "mirror lies, another is right": 0.6,
    "full disk, from a mirror": 0.3,
    "corrupt peer, another is right": 0.5,
    "full disk, from a peer": 0.2,
}
"""By fault, where the boundary is: its number as a share of all."""


async def test_no_fault_at_a_boundary_of_tensors_gives_a_wrong_tensor_or_loses_what_came() -> None:
    faults = {fault.name: fault for fault in FAULTS}
    async with AsyncExitStack() as stack:
        site = await opened(stack)
        for name, share in SOME.items():
            if faults[name].on_small_disk and site.rig.disk is None:
                continue  # needs root
            boundaries = chosen(faults[name], site, 1)
            outcome = await Matrix(site).case(faults[name], boundaries[int(share * len(boundaries))])
            assert outcome.wrong == [], outcome
