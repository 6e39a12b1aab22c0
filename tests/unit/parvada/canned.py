"""Values of the wire as a small, busy cluster gives them."""

from typing import Any

NODE_IDS = ("aa" * 16, "bb" * 16, "cc" * 16)


def node(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": NODE_IDS[number - 1],
        "name": f"node-{number}",
        "address": "127.0.0.1",
        "api_port": 8080,
        "role": "voter",
        "state": "alive",
        "leader": number == 1,
        "ray_head": number == 2,
        "version": "0.1.0",
        "started_at": "2026-11-22T11:00:00Z",
        "last_seen": "2026-11-22T12:00:00Z",
        "cpu_percent": 20.0 * number,
        "memory_bytes": number * 400 * 2**20,
        "memory_total_bytes": 4 * 2**30,
        "disk_free_bytes": 20 * 2**30,
        "requests_per_second": 10.0 * number,
        **changes,
    }


def cluster(*nodes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    members = list(nodes) or [node(1), node(2), node(3)]
    return {
        "cluster_id": "c" * 32,
        "name": "parvada",
        "leader": members[0]["id"],
        "term": 7,
        "commit_index": 42,
        "applied_index": 42,
        "quorum": True,
        "voters": [member["id"] for member in members],
        "learners": [],
        "ray": {
            "epoch": 2,
            "state": "up",
            "head": NODE_IDS[1],
            "address": "10.0.0.2:6379",
            "nodes": [member["id"] for member in members],
            "cpus": 6.0,
            "cpus_used": 4.0,
        },
        "nodes": members,
        "alarms": [],
        **changes,
    }


def job(job_id: str = "01kabc", fraction: float = 0.5, state: str = "running", **changes: Any) -> dict[str, Any]:
    progress = {
        "trials_total": 100,
        "trials_done": int(100 * fraction),
        "trials_failed": 0,
        "trials_running": 4,
        "fraction": fraction,
        "eta_seconds": 75.0,
    }
    return {
        "id": job_id,
        "name": "spring",
        "state": state,
        "spec": {"datasets": ["iris"]},
        "progress": progress,
        "per_dataset": [
            {
                "dataset": "iris",
                "version": 1,
                "target": "species",
                "task": "multiclass",
                "metric": "accuracy",
                "state": "done" if state == "succeeded" else "running",
                "progress": progress,
                "best": "0.3",
                "best_estimator": "RandomForestClassifier",
                "best_score": 0.9733,
                "model": "iris" if state == "succeeded" else None,
                "model_version": 1 if state == "succeeded" else None,
            }
        ],
        "created_at": "2026-11-22T11:59:00Z",
        "started_at": "2026-11-22T11:59:01Z",
        "ended_at": "2026-11-22T12:01:00Z" if state != "running" else None,
        "epochs": [2],
        "resumed": 0,
        **changes,
    }


def dataset(name: str = "iris", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": 1,
        "digest": "d" * 64,
        "rows": 150,
        "bytes": 4000,
        "parts": 1,
        "target": "species",
        "task": "multiclass",
        "columns": [{"name": "petal", "type": "number", "nullable": False, "missing": 0, "distinct": 40}],
        "created_at": "2026-11-22T11:59:00Z",
        "created_by": "admin",
        "holders": {},
        **changes,
    }


def version(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "model": "iris",
        "version": number,
        "digest": "e" * 64,
        "task": "multiclass",
        "estimator": "SVC",
        "params": {},
        "signature": {"inputs": [{"name": "petal", "type": "number", "required": True}], "outputs": []},
        "metrics": {"accuracy": 0.97},
        "dataset": {"name": "iris", "version": 1, "digest": "d" * 64},
        "job": "01kabc",
        "candidate": "0.1",
        "engine": "sklearn",
        "engine_reason": "",
        "libraries": {},
        "bytes": 5000,
        "created_at": "2026-11-22T11:59:00Z",
        "holders": list(NODE_IDS[:2]),
        "aliases": [],
        **changes,
    }


MODEL = {
    "name": "iris",
    "latest": 1,
    "versions": [1],
    "aliases": {},
    "task": "multiclass",
    "estimator": "SVC",
    "metrics": {"accuracy": 0.97},
}
ALIAS_MOVED = {"alias": "production", "version": 2, "previous": 1}
PREDICTION = {"predictions": ["setosa"], "model": "iris", "version": 1, "engine": "sklearn"}
