"""Train an experiment, resume one, or train one configuration with several seeds."""

from qa.training.launch import resume_experiment, train_experiment, train_seeds

__all__ = ["resume_experiment", "train_experiment", "train_seeds"]
