"""Child processes: started, watched, ended with their node.

`children.Supervisor` and `workshop.Workshop` are built by their constructors.
"""
