"""From one seed to a whole run: the size of the cluster, which faults it has, and how it ended."""

import logging
import random
from collections.abc import Callable

import msgspec

from consensus.core.compaction import CompactionRule
from consensus.core.disk import Corrupt
from consensus.core.matching import Diverged
from consensus.levels import LEVEL
from tests.simulation.checks import Violation
from tests.simulation.clock import NEW_LEVEL, Sizes, virtual_time
from tests.simulation.faults import Chaos, Profile
from tests.simulation.formation import RULES
from tests.simulation.healing import heal_and_check
from tests.simulation.plots import PLOTS
from tests.simulation.world import Note, World

STEPS = 540
PLOT_OF_SEED = dict(zip((5, 11, 17), PLOTS, strict=True))
"""By the remainder of the seed by 18."""
RELEASES_OF_SEED = (8, 14)
FORMATION_OF_SEED = 2


class Scenario(msgspec.Struct, frozen=True):
    """What a seed stands for."""

    seed: int
    voters: str
    learners: str
    rule: CompactionRule
    sizes: Sizes
    profile: Profile
    big: bool
    formation: str = ""
    """The rule by which blank nodes form the cluster; empty if it is there from the start."""
    steps: int = STEPS
    new_level: int = NEW_LEVEL
    """Of the newer of two releases; the other understands one less."""

    @property
    def kind(self) -> str:
        """The name of its plot, "releases", its rule of formation, or nothing special."""
        return self.profile.plot or self.formation or ("releases" if self.profile.releases else "")


class Outcome(msgspec.Struct, frozen=True):
    """How one seed ended: `problem` is empty if every promise was kept."""

    seed: int
    acknowledged: int
    entries: int
    problem: str


def scenario(seed: int, steps: int = STEPS) -> Scenario:
    """3 to 7 nodes, mostly few, some of them learners; each fault in about two runs of three. Six in 18 are special."""
    rng = random.Random(f"scenario {seed}")
    nodes = rng.choice((3, 3, 3, 4, 5, 5, 6, 7))
    voters = min(nodes, rng.choice((3, 3, 5, 7)))
    names = "ABCDEFG"[:nodes]

    def often() -> bool:
        return rng.random() < 0.65

    profile = Profile(
        one_way=often(),
        full_disks=often(),
        slow_syncs=often(),
        rot=often(),
        jumps=often(),
        chaotic=rng.random() < 0.25,
        voters=rng.choice(("nobody", "random", "random", "rules")),
    )
    plot = PLOT_OF_SEED.get(seed % 18, "")
    if plot:
        names = "ABCDE"
        voters = 3 if plot == "overlapping changes" else rng.choice((3, 5, 5)) if plot == "hand-overs" else 5
        profile = Profile(slow_syncs=False, jumps=False, voters="nobody", plot=plot)
    if seed % 18 in (*RELEASES_OF_SEED, FORMATION_OF_SEED):
        # Rot takes a node away for good, after which a release is never common to all.
        replace = msgspec.structs.replace
        releases = seed % 18 in RELEASES_OF_SEED
        profile = replace(profile, voters="rules", rot=False, releases=releases, careful=seed // 18 % 2 == 0)
    formation = RULES[seed // 18 % len(RULES)] if seed % 18 == FORMATION_OF_SEED else ""
    entries = rng.choice((40, 40, 80, 10_000))
    big = rng.random() < 0.1
    return Scenario(
        seed=seed,
        voters=names[:voters],
        learners=names[voters:],
        rule=CompactionRule(entries=entries, trailing_entries=rng.choice((3, 10, 30))),
        sizes=Sizes(
            rng.choice((60, 600, 60_000)), rng.choice((32, 8192)), 1 << 20 if big else rng.choice((3000, 1 << 20))
        ),
        profile=profile,
        big=big,
        formation=formation,
        steps=steps,
        # Half of the exchanges are from the release before this one.
        new_level=LEVEL if seed % 18 == RELEASES_OF_SEED[0] else NEW_LEVEL,
    )


def play(what: Scenario, note: Note = lambda at, who, what: None) -> World:
    """Run it to its end. Raises Violation, Diverged, or whatever else breaks."""
    with virtual_time(what.sizes, what.new_level) as clock:
        world = World(
            what.seed,
            clock,
            names=what.voters,
            learners=what.learners,
            rule=what.rule,
            big=what.big,
            minds=what.profile.voters == "rules",
            new_level=what.new_level,
            formation=what.formation,
            note=note,
        )
        try:
            chaos = Chaos(world, what.profile)
            for _ in range(what.steps):
                chaos.step()
            heal_and_check(world, as_told=not what.profile.careful)
        finally:
            world.close()
        return world


def run_seed(seed: int, steps: int = STEPS) -> Outcome:
    """Play one seed, with any exception as the problem: whatever a core raises would have ended a real node."""
    logging.disable(logging.CRITICAL)
    try:
        world = play(scenario(seed, steps))
    except (Violation, Diverged, Corrupt) as error:
        return Outcome(seed, 0, 0, f"{type(error).__name__}: {error}")
    except Exception as error:  # a crash of the core is a finding like any other
        return Outcome(seed, 0, 0, f"crashed: {error!r}")
    finally:
        logging.disable(logging.NOTSET)
    return Outcome(seed, len(world.clients.acknowledged), len(world.reference.commands) - 1, "")


def transcript(seed: int, write: Callable[[str], object], steps: int = STEPS) -> bool:
    """Tell a run line by line: when, who, what. The violation, if there is one, is its last line; True if none."""

    def tell(at: float, who: str, event: str) -> None:
        write(f"{at - 1000:9.3f} s  {who or '*':3} {event}")

    what = scenario(seed, steps)
    write(f"seed {seed}: voters {what.voters}, learners {what.learners or 'none'}, {what.profile}")
    logging.disable(logging.CRITICAL)
    try:
        world = play(what, tell)
    except Exception as error:
        write(f"VIOLATION {type(error).__name__}: {error}")
        return False
    else:
        write(
            f"kept: {len(world.clients.acknowledged)} acknowledged writes, {len(world.reference.commands) - 1} entries"
        )
        return True
    finally:
        logging.disable(logging.NOTSET)
