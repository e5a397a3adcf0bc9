"""Train, evaluate and ask extractive question-answering encoders; every run is an experiment folder."""
