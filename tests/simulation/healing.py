"""The end of every run: all faults stop, and then the cluster must recover by itself, with nothing lost."""

from consensus.queries import remembers
from node.membership.voters import wanted_voters
from tests.simulation.checks import Violation
from tests.simulation.mind import LIMITS
from tests.simulation.network import at_once
from tests.simulation.world import World

LIVE_AGAIN_SECONDS = 30.0
"""After the last fault, every node must be of one mind and every client answered within this."""


def heal_and_check(world: World, *, as_told: bool = False) -> None:
    """Every node must come to the same state soon, with every acknowledged write in it. Raises Violation.

    `as_told`: nodes of the older release that stop and say that they need the newer one get it, as their sentence tells
    whoever runs them. Without, the others must go on by themselves: who took nodes back one by one and saw each work
    has a majority all along."""
    _end_all_faults(world)
    world.run_until(lambda: _told_done(world, as_told) and settled(world), seconds=LIVE_AGAIN_SECONDS)
    if world.new_level in world.levels.values():
        _upgrade_all(world)
    if world.minds and not world.retired:
        world.run_until(lambda: settled(world) and has_its_voters(world), seconds=LIVE_AGAIN_SECONDS)
    for name, server in world.servers.items():
        state = server.machine.state
        world.reference.check_state(name, state, server.core.applied_index)
        lost = {command for command in world.clients.acknowledged if not remembers(state, command)}
        if lost:
            total = len(world.clients.acknowledged)
            raise Violation(f"{name} lost {len(lost)} of {total} acknowledged writes: {min(lost)}")
    world.clients.trainer.check(world.reference.state)


def _end_all_faults(world: World) -> None:
    world.note("", "all faults end")
    world.heal()
    world.paused, world.slow_syncs, world.network.chaotic = {}, False, False
    world.network.delay, world.network.held = at_once, []
    if world.forming is not None:
        world.forming.heal()
    for name in [name for name, server in world.servers.items() if server.mind is not None and server.mind.leaving]:
        world.crash(name)  # what was about to stop does, or it would never register again
    for name, disk in world.disks.items():
        disk.crash_after = disk.full = None
        if name not in world.servers and name not in world.retired:
            world.start(name)


def _told_done(world: World, as_told: bool) -> bool:
    for name in sorted(world.outdated) if as_told else ():
        world.start(name)
    return True


def settled(world: World) -> bool:
    leader = world.leader()
    if leader is None or world.clients.waiting or (world.forming is not None and world.forming.blank):
        return False
    at = leader.core.last_index
    return all(s.core.applied_index == at and s.core.leader is not None for s in world.servers.values())


def has_its_voters(world: World) -> bool:
    """As many as the rules want, of those that live."""
    leader = world.leader()
    if leader is None:
        return False
    voters = leader.core.electorate.applied
    wanted = wanted_voters(len(world.servers), LIMITS.max_voters)
    return set(voters) <= world.servers.keys() and len(voters) == wanted


def _upgrade_all(world: World) -> None:
    """The last nodes get the newer release, one at a time: then what it brings can be used.

    A node that never comes back has to be removed first, which only an operator may decide."""
    for name in sorted(world.disks.keys() - world.retired):
        if world.levels[name] < world.new_level or name in world.outdated:
            world.restart(name, world.new_level)
            world.run_until(lambda: settled(world), seconds=LIVE_AGAIN_SECONDS)
    if not world.retired:
        world.run_until(lambda: world.reference.state.level == world.new_level, seconds=LIVE_AGAIN_SECONDS)
