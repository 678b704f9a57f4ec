"""The class of image classifiers, and the base that it shares with that of text classifiers."""
