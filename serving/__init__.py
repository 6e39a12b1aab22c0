"""Answers predictions: the front processes of a node, which need neither quorum nor Ray to do their work."""
