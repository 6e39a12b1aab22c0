"""The replicated log and the pure state machine that it drives."""
