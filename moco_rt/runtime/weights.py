"""A model's weights before a move, so that a move that fails leaves the model as it was."""

from __future__ import annotations

from torch.nn import Module


class WeightsBefore:
    """The parameters and buffers of a model as they are now; it keeps them alive.

    Args:
        model: whose weights may be moved.
    """

    def __init__(self, model: Module):
        modules = tuple(model.modules())
        self._model = model
        self._parameters = [
            (module, name, parameter, parameter.data)
            for module in modules
            for name, parameter in module.named_parameters(recurse=False)
        ]
        self._buffers = [
            (module, name, buffer) for module in modules for name, buffer in module.named_buffers(recurse=False)
        ]
        self._places = self._current_places()

    def have_moved(self) -> bool:
        """Tell whether any of them lies elsewhere by now."""
        return self._current_places() != self._places

    def restore(self) -> None:
        """Put all of them back."""
        for module, name, parameter, data in self._parameters:
            parameter.data = data
            setattr(module, name, parameter)
        for module, name, buffer in self._buffers:
            setattr(module, name, buffer)

    def _current_places(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self._model.parameters(), *self._model.buffers())]
