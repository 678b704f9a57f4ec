"""HTTP: a classifier, a cascade or a reranker behind the endpoints of text-embeddings-inference."""
