"""What this node tells of itself, and what it knows of the others: machine, requests, history, alarms."""
