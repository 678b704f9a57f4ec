"""Files of texts, and folders of images, to files of labels."""

from moco_rt.serving.label_files import predict_file, predict_folder

__all__ = [
    "predict_file",
    "predict_folder",
]
