"""Is the node on this machine ready? Standard library only and quick, for the container's health check.

`python -S -m parvada.health` exits with 0 if `GET /readyz` on PARVADA_PORT answers 200, else with 1 and the reason.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 2.0


def is_ready(host: str, port: int) -> bool:
    """Whether the node at that client port can serve what it should; never raises."""
    return check(host, port) == ""


def check(host: str, port: int) -> str:
    """Why the node is not ready, "" if it is."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{host}:{port} answered {answer.status}: {body}"


def main() -> int:
    """Check the node of this container or machine; returns the exit code."""
    reason = check("127.0.0.1", int(os.environ.get("PARVADA_PORT") or "8080"))
    if reason:
        sys.stderr.write(reason + "\n")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
