"""The fronts' read view, made from the replicated state: which models there are, and whom their tokens admit."""

from collections.abc import Callable, Sequence

import msgspec

from consensus.ports import LogStatus
from consensus.state import ClusterState, Model, ModelVersion, NodeId
from parvada import schema
from serving.view import ModelView, ServingView, TokenView, VersionView

_NOT_A_MEMBER = "this node is not a member of the cluster yet"


class ViewBuilder:
    """Builds views of successive states. What has not changed since the last is not built again."""

    def __init__(self, me: NodeId, auth: str, admin_sha256s: Callable[[], Sequence[str]]) -> None:
        self._me = me
        self._auth = auth
        self._admin_sha256s = admin_sha256s
        self._admins: Sequence[str] = ()
        self._state = ClusterState()
        self._models: tuple[ModelView, ...] = ()
        self._tokens: tuple[TokenView, ...] = ()

    def build(self, state: ClusterState, status: LogStatus) -> ServingView:
        if state.models is not self._state.models:
            self._models = tuple(model_view(state.models[name]) for name in sorted(state.models))
        admins = self._admin_sha256s()
        if state.tokens is not self._state.tokens or admins is not self._admins:
            made = (TokenView(token.sha256, token.role) for token in state.tokens.values())
            self._tokens = (*(TokenView(sha256, "admin") for sha256 in admins), *made)
            self._admins = admins
        self._state = state
        ready = self._me in state.members
        return ServingView(
            index=state.index,
            node=self._me,
            auth=self._auth,
            stale_seconds=None if status.quorum else status.seconds_without_quorum,
            ready=ready,
            not_ready_reason="" if ready else _NOT_A_MEMBER,
            models=self._models,
            tokens=self._tokens,
        )


def urgent(old: ServingView, new: ServingView) -> bool:
    """Whether fronts should know at once, not with the next second's frame: more than index and age differ."""
    return (
        old.models is not new.models
        or old.tokens is not new.tokens
        or old.ready != new.ready
        or (old.stale_seconds is None) != (new.stale_seconds is None)
    )


def model_view(model: Model) -> ModelView:
    return ModelView(
        name=model.name,
        latest=model.latest,
        aliases=dict(sorted(model.aliases.items())),
        versions=tuple(_version_view(model.versions[number]) for number in sorted(model.versions)),
    )


def _version_view(version: ModelVersion) -> VersionView:
    detail = msgspec.json.decode(version.detail, type=schema.VersionDetail)
    return VersionView(
        version=version.version,
        digest=version.digest,
        bytes=version.bytes,
        task=version.task,
        estimator=version.estimator,
        engine=version.engine,
        signature=detail.signature,
    )
