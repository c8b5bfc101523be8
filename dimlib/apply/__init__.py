"""For users: the estimator, pretrained models, files, costs, and the command."""
