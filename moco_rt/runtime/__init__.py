"""One model, one batch: backends, exit points, the model class, prediction, checkpoints."""
