"""The product's main job in real containers: data in at one node, models trained on all, predictions from each,
the leader killed in the middle of it. The tests of this module build on one another, in this order."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from tests.compose.conftest import Started
from tests.support.compose import Compose, Container
from tests.support.data import iris_csv, wine_csv
from tests.support.nodes import comparable
from tests.support.wait import wait_for

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400), pytest.mark.random_order(disabled=True)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
MOST_TERMS = 6
"""Elections that one death may take: a vote may split, and more so where six containers start beside; but who stands
again and again does not let anybody win."""


@pytest.fixture(scope="module")
def flock(project: Started) -> Iterator[Compose]:
    """Three nodes as `docker compose up` starts them, healthy."""
    with project("parvadajourney") as started:
        yield started


def ids(flock: Compose) -> dict[str, str]:
    return {node["name"]: node["id"] for node in flock.view(flock.living[0])["nodes"]}


def test_up_gives_three_healthy_nodes_that_know_one_another(flock: Compose) -> None:
    flock.wait_for_voters(3)
    for node in flock.nodes:
        wait_for(f"{node.name} to be healthy", lambda node=node: node.health == "healthy", 120)  # type: ignore[misc]
    views = [flock.view(node) for node in flock.nodes]
    assert len({view["cluster_id"] for view in views}) == 1
    assert len({view["leader"] for view in views}) == 1
    assert [sorted(node["name"] for node in view["nodes"]) for view in views] == [["node-1", "node-2", "node-3"]] * 3
    assert all(view["formation"] for view in views)


def test_the_command_line_in_a_container_finds_node_and_token_by_itself(flock: Compose) -> None:
    status = flock.compose("exec", "-T", "node", "parvada", "status")
    assert "node-3" in status.stdout
    shown = flock.compose("exec", "-T", "node", "parvada", "status", "--json")
    assert '"quorum":true' in shown.stdout.replace(" ", "")


def test_a_node_runs_without_privileges_and_the_secret_is_private(flock: Compose) -> None:
    node = flock.nodes[0]
    assert node.run("id", "-u").stdout.strip() != "0"
    assert node.run("stat", "-c", "%a", "/var/lib/parvada/secret").stdout.strip() == "600"
    secret = node.run("cat", "/var/lib/parvada/secret").stdout.strip()
    assert secret
    assert secret not in flock.compose("logs", "--no-color").stdout


def test_ray_spans_all_three_nodes_and_refuses_strangers(flock: Compose) -> None:
    ray = flock.wait_for_ray(3)
    # A plain client, without certificate and token, from inside the network.
    plain = flock.nodes[0].run(
        "env", "-u", "RAY_USE_TLS", "timeout", "40", "python", "-c",
        f"import ray; ray.init(address={ray['address']!r}, logging_level='critical'); print('attached')",
        timeout=60,
    )  # fmt: skip
    assert "attached" not in plain.stdout
    assert plain.returncode != 0


def test_data_pushed_to_one_node_is_on_all(flock: Compose) -> None:
    first, *others = flock.nodes
    pushed = flock.push(first, "iris", iris_csv(), "?target=species")
    assert (pushed["rows"], pushed["task"], pushed["version"]) == (150, "multiclass", 1)
    assert all(len(holders) >= 2 for holders in pushed["holders"].values())
    again = flock.ask(first, "PUT", "/v1/datasets/iris?target=species", iris_csv())
    assert (again.status, again.body["version"]) == (200, 1)
    for node in others:
        answer = flock.wait_for_answer(node, "GET", "/v1/datasets/iris")
        assert answer.body["digest"] == pushed["digest"]


def test_models_are_trained_and_the_best_serves_from_every_node(flock: Compose) -> None:
    job = flock.submit(flock.nodes[1], {"datasets": ["iris"], "seed": 7})
    ended = flock.wait_for_job(job)
    assert ended["state"] == "succeeded", ended
    assert ended["progress"]["fraction"] == 1.0
    rows = flock.leaderboard(job)
    assert len(rows) >= 12
    assert rows[0]["cv_mean"] >= 0.93
    assert [row["rank"] for row in rows if row["state"] == "ok"] == sorted(
        row["rank"] for row in rows if row["state"] == "ok"
    )
    for node in flock.nodes:
        answer = flock.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
        assert answer.body["predictions"] == ["setosa"]
        infer = flock.ask(
            node,
            "POST",
            "/v2/models/iris/infer",
            {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": list(ROW.values())}]},
        )
        assert infer.status == 200, infer
        assert infer.body["outputs"][0]["data"] == ["setosa"]


def test_the_terminal_ui_runs_beside_the_nodes_and_leaves_their_number_alone(flock: Compose) -> None:
    with flock.on_terminal("run", "--rm", "tui") as terminal:
        wait_for("the screen to show a node", lambda: "node-3" in terminal.drawn, 60, every=0.5)
        assert len(flock.living) == 3
        terminal.send("q")
        assert terminal.process.wait(30) == 0
    assert len(flock.living) == 3


class Load:
    """Predictions without a pause against some nodes, from one thread each; every failure is kept."""

    def __init__(self, flock: Compose, nodes: list[Container]) -> None:
        self._flock = flock
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.answered = 0
        self._threads = [threading.Thread(target=self._run, args=(node, node.url), daemon=True) for node in nodes]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _run(self, node: Container, url: str) -> None:
        fixed = Fixed(node.name, url)
        for number in itertools.count():
            if self._stop.is_set():
                return
            try:
                answer = self._flock.ask(fixed, "POST", "/v1/models/iris/predict", {"rows": [ROW]}, timeout=10)
                if answer.status != 200:
                    self.failures.append(f"{node.name} #{number}: {answer.status} {answer.body}")
            except OSError as error:
                self.failures.append(f"{node.name} #{number}: {error!r}")
            self.answered += 1
            time.sleep(0.02)


class Fixed:
    """A node at a fixed URL: asking Docker for the port at every request would be slow."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url, self.alive = name, url, True

    def kill(self) -> None:
        raise NotImplementedError


def test_killing_the_leader_in_training_loses_nothing(flock: Compose) -> None:
    flock.push(flock.nodes[0], "wine", wine_csv(), "?target=cultivar")
    spec = {"datasets": ["wine"], "seed": 11, "cv": {"folds": 5, "repeats": 2}, "publish": {"when": "never"}}
    undisturbed = flock.submit(flock.nodes[0], spec)
    assert flock.wait_for_job(undisturbed)["state"] == "succeeded"

    before = ids(flock)
    leader = flock.leader_that_trains()
    assert isinstance(leader, Container)
    survivors = [node for node in flock.nodes if node.name != leader.name]
    with Load(flock, survivors) as load:
        job = flock.submit(survivors[0], spec)
        done = wait_for(
            "some folds to be done",
            lambda: (seen := flock.job(job, survivors[0])["progress"]["trials_done"]) >= 5 and seen,
            60,
        )
        seen = flock.view(survivors[0])
        epoch, term = seen["ray"]["epoch"], seen["term"]
        leader.kill()
        new = flock.wait_for_new_leader(before[leader.name], 60)
        elections = flock.read(survivors[0], "/v1/cluster?consistency=linearizable")["term"] - term
        pushed = flock.push(survivors[1], "after", iris_csv(), "?target=species")
        assert pushed["version"] == 1
        assert flock.job(job)["progress"]["trials_done"] >= done, "a finished fold was forgotten"
        ended = flock.wait_for_job(job)
    assert load.failures == []
    assert load.answered > 100
    assert 1 <= elections <= MOST_TERMS
    assert new != before[leader.name]
    assert ended["state"] == "succeeded"
    assert ended["resumed"] >= 1
    assert max(ended["epochs"]) > epoch
    assert comparable(flock.leaderboard(job)) == comparable(flock.leaderboard(undisturbed))

    leader.start()
    flock.wait_ready()
    assert ids(flock) == before
    wait_for(
        "the killed node to catch up",
        lambda: flock.ask(leader, "GET", f"/v1/jobs/{job}").body.get("state") == "succeeded",
    )
    answer = flock.ask(leader, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
    assert answer.body["predictions"] == ["setosa"]
    flock.wait_for_voters(3)
