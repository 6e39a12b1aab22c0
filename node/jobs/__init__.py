"""Jobs that have ended: sealed into one results file, read again for a leaderboard, and in the end let go."""
