"""The ids of texts, laid end to end: by Hugging Face's library, or by a faster one where both are proven to agree."""

from moco_rt.encoding.encoded_texts import Encoded, EncodedTexts

__all__ = ["Encoded", "EncodedTexts"]
