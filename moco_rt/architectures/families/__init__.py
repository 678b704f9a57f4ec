"""One file a model family: where its sub-layers and weights are in Hugging Face's modules."""
