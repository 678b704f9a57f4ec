"""Exits of a model, the certificate and monitor that go with them, and their files."""
