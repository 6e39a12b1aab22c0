"""Child processes: started, watched, ended with their node.

`children.Supervisor` is built by its constructor, the workshop by that of `training.pool.Pool`.
"""
