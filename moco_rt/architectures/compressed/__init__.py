"""Smaller models: classifiers with fewer heads and neurons, and with shorter rows, as transformers saves them."""
