"""Child processes: started, watched, ended with their node."""
