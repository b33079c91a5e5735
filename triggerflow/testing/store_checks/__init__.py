"""The promises of `check_store`, one function each, by what they are about."""
