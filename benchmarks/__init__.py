"""Speed and memory against what a user would run instead: `python -m benchmarks [NAME ...]` (see README.md).

One module a comparison: it offers a function that lists its cases, and `benchmarks.__main__` names it. How
they are timed is `comparison`, how memory is measured `memory`, what comes out `report`.
"""
