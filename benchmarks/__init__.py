"""What is fast and small, measured: each script prints its figures, and ratios where two things are compared."""
