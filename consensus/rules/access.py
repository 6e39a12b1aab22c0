"""Rules of the API tokens: only the SHA-256 of a token's text is ever kept."""

from msgspec.structs import replace

from consensus.messages import CreateToken, RevokeToken
from consensus.rules.checks import Change, Stamp, check_digest, check_name, event, refuse
from consensus.state import ClusterState, Token


def create_token(state: ClusterState, command: CreateToken, stamp: Stamp) -> Change:
    check_name("token id", command.token)
    check_name("token name", command.name)
    check_digest("SHA-256 of the token", command.sha256)
    if command.token in state.tokens:
        refuse("conflict", f"a token with the id {command.token} exists already")
    if any(token.sha256 == command.sha256 for token in state.tokens.values()):
        refuse("conflict", "this token exists already under another id")
    token = Token(command.token, command.name, command.role, command.sha256, stamp.at)
    return Change(
        replace(state, tokens=state.tokens.set(token.id, token)),
        (event(stamp, "token.created", token.id, name=token.name, role=token.role),),
    )


def revoke_token(state: ClusterState, command: RevokeToken, stamp: Stamp) -> Change:
    token = state.tokens.get(command.token)
    if token is None:
        check_name("token id", command.token)
        refuse("not_found", f"there is no token with the id {command.token}")
    return Change(
        replace(state, tokens=state.tokens.delete(token.id)),
        (event(stamp, "token.revoked", token.id, name=token.name, role=token.role),),
    )
