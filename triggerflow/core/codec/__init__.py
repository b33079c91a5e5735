"""Content addressing and the encoding of values: everything that becomes bytes passes here."""

from triggerflow.core.cid import CID as CID
from triggerflow.core.cid import cid_of_block as cid_of_block
from triggerflow.core.codec.documents import cid_of as cid_of
from triggerflow.core.codec.documents import decode_document as decode_document
from triggerflow.core.codec.documents import encode_document as encode_document
from triggerflow.core.codec.documents import encode_normalised as encode_normalised
from triggerflow.core.codec.documents import normalise as normalise
from triggerflow.core.codec.forms import list_of as list_of
from triggerflow.core.codec.jsontext import from_atproto_json as from_atproto_json
from triggerflow.core.codec.jsontext import parse_json as parse_json
from triggerflow.core.codec.jsontext import to_json_model as to_json_model
from triggerflow.core.codec.values import VALUE_LIMITS as VALUE_LIMITS
from triggerflow.core.codec.values import ValueCodec as ValueCodec
from triggerflow.core.codec.walk import Limits as Limits

__all__ = [
    "CID",
    "VALUE_LIMITS",
    "Limits",
    "ValueCodec",
    "cid_of",
    "cid_of_block",
    "decode_document",
    "encode_document",
    "encode_normalised",
    "from_atproto_json",
    "list_of",
    "normalise",
    "parse_json",
    "to_json_model",
]
