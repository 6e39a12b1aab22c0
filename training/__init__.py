"""From uploads to published models: datasets, jobs, folds, and the processes that fit them. See DESIGN.md."""
