"""Six versions of one flow."""
