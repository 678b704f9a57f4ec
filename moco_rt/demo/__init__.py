"""`moco-rt demo`: a corpus, a classifier, one run of everything."""
