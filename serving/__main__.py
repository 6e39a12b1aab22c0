"""`python -m serving`: one front, as an agent starts it."""

from parvada._startup import cheap_imports

with cheap_imports():
    from serving.front import run

if __name__ == "__main__":
    run()
