"""What a node does next in a rotation, whatever it had done before it stopped."""

import pytest

from consensus.state import NodeId, Rotation, RotationPhase
from node.identity.rotation_plan import Confirm, Fetch, Held, Nothing, Present, Retire, Step, next_step

ME = NodeId("a" * 32)
SETTLED, PREPARE, PRESENT, RETIRE = RotationPhase


def rotation(phase: RotationPhase, *confirmed: NodeId) -> Rotation:
    if phase is SETTLED:
        return Rotation(2, "new")
    return Rotation(1, "", phase, "new", ME, 0.0, confirmed)


BLANK, PREPARED, PRESENTED, DONE = Held("old"), Held("old", "new"), Held("new", "old"), Held("new")


@pytest.mark.parametrize(
    ("known", "held", "expected"),
    [
        (rotation(PREPARE), BLANK, Fetch("new")),
        (rotation(PREPARE), Held("old", "made in vain"), Fetch("new")),
        (rotation(PREPARE), PREPARED, Confirm("new", PREPARE)),
        (rotation(PREPARE, ME), PREPARED, Nothing()),
        (rotation(PREPARE), DONE, Confirm("new", PREPARE)),
        (rotation(PRESENT), BLANK, Fetch("new")),
        (rotation(PRESENT), PREPARED, Present()),
        (rotation(PRESENT), PRESENTED, Confirm("new", PRESENT)),
        (rotation(PRESENT, ME), PRESENTED, Nothing()),
        (rotation(PRESENT), DONE, Confirm("new", PRESENT)),
        (rotation(RETIRE), BLANK, Fetch("new")),
        (rotation(RETIRE), PREPARED, Present()),
        (rotation(RETIRE), PRESENTED, Retire()),
        (rotation(RETIRE, ME), PRESENTED, Retire()),
        (rotation(RETIRE), DONE, Confirm("new", RETIRE)),
        (rotation(RETIRE, ME), DONE, Nothing()),
        (rotation(SETTLED), DONE, Nothing()),
        (rotation(SETTLED), PREPARED, Present()),
        (rotation(SETTLED), PRESENTED, Retire()),
        (rotation(SETTLED), Held("new", "abandoned"), Retire()),
        (Rotation(), BLANK, Nothing()),
        (Rotation(), Held("old", "abandoned"), Retire()),
    ],
)
def test_next_step(known: Rotation, held: Held, expected: Step) -> None:
    assert next_step(known, ME, held) == expected
