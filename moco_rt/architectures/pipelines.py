"""What `transformers.pipeline` is told of our model classes."""

from __future__ import annotations

from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def announce_to_pipelines(key: str, class_name: str) -> None:
    """Add a class to the text classifiers that transformers knows by name.

    `pipeline("text-classification")` logs an error about any model whose class it does not find in this table, and has
    no public way to add one without a configuration class.

    Args:
        key: the entry's own name.
        class_name: of the model.
    """
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[key] = class_name


class PipelineModel:
    """What a text classifier tells `transformers.pipeline` beside its logits."""

    input_modalities = "text"

    def can_generate(self) -> bool:
        """Answer that it does not write text."""
        return False
