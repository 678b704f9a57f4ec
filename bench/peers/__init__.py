"""The benchmark against rival engines: `cd bench && python -m peers`, in an environment with requirements.txt."""
