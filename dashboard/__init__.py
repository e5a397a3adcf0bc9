"""The dashboard: pages over experiments, and every chart, for the terminal as well."""
