"""The pure core: values in, values out; it reads no clock, no file and no socket."""
