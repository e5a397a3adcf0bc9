"""The parts of the page Compare, a module each; `dashboard/views/compare.py` puts them together."""
