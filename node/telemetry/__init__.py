"""What this node tells of itself, and what it knows of the others: machine, requests, history, alarms.

`telemetry.Telemetry` is built by its constructor.
"""
