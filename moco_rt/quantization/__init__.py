"""Linear layers with few bits, and transformers' door for them.

Importing this room registers the int8 format with transformers, which then loads such models by itself.
"""

from moco_rt.quantization.hf_quantizer import Int8Config, is_int8
from moco_rt.quantization.int8_linear import Int8Linear

__all__ = ["Int8Config", "Int8Linear", "is_int8"]
