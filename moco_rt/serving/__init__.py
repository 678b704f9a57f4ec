"""Files of texts to files of labels."""

from moco_rt.serving.label_files import predict_file

__all__ = [
    "predict_file",
]
