"""The bodies of requests and answers, in the shapes of text-embeddings-inference 1.9."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

_Listed = Annotated[list[StrictStr], Field(min_length=1, max_length=2)]
#: A text, alone or in a list, or a pair in a list of two. A flat list of two strings is one pair; a batch is a list of
#: lists.
OneInput = StrictStr | _Listed
BatchInput = list[_Listed]
_SMALL_EXAMPLE = "a gripping film"
_LARGEST = 3.4e38  # of float32, about
#: A number, but no string that says one.
Number = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]


class TextsRequest(BaseModel):
    """A request about texts, and what becomes of long ones."""

    model_config = ConfigDict(extra="ignore")  # as text-embeddings-inference does it

    raw_scores: StrictBool = Field(False, description="logits in place of probabilities")
    truncate: StrictBool | None = Field(None, description="false: texts that the model would cut are refused")
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = Field(
        None, description="where texts are cut: the tokenizer's side; the other one is refused"
    )


class PredictRequest(TextsRequest):
    """Texts to label."""

    inputs: OneInput | BatchInput = Field(
        description="a text, a list of one, a list of the two of a pair, or a list of such lists"
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": _SMALL_EXAMPLE}]})


class RerankRequest(TextsRequest):
    """Texts to rank by a query."""

    query: StrictStr
    texts: list[StrictStr]
    return_text: StrictBool = False
    scores: list[Number] | None = Field(
        None,
        description="one number per text, by the search that found them, the higher the better; without them no text "
        "leaves early by a policy that was found with such scores",
    )


class PipelineParameters(BaseModel):
    """Parameters of a text classification, as Hugging Face's inference clients send them; there are no others."""

    model_config = ConfigDict(extra="forbid")  # `max_length` and its like would change the answer

    top_k: Annotated[StrictInt, Field(ge=1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    truncation: Annotated[StrictBool | None, Field(description="the same as truncate")] = None


class PipelineRequest(TextsRequest):
    """A text, or several, as Hugging Face's inference clients send them."""

    inputs: StrictStr | list[StrictStr]
    parameters: PipelineParameters | None = None


class Scored(BaseModel):
    """A label and its probability."""

    score: float
    label: str


class Ranked(BaseModel):
    """A text's place in the request, and how relevant it is."""

    index: int
    score: float
    text: str | None = None


class Refusal(BaseModel):
    """The body of an error."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty", "Unauthorized"]


class Info(BaseModel):
    """The model that runs, and the limits of requests."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int = 1
    version: str
    sha: str | None = None
    docker_label: str | None = None
    policy_step: int | None = Field(None, description="place on the certified path of the policy in use")
    certified: bool = Field(False, description="whether a certificate is about the exits in use")
    shadow: bool = Field(False, description="answers are the full model's; the policy's are only recorded")
