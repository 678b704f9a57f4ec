"""Small classifiers of the families that ../shared has none of, made here: what their exits save can be measured."""
