"""Files of texts to files of labels."""
