"""One module for each engine: how a Hugging Face classifier is converted for it, loaded and run."""
