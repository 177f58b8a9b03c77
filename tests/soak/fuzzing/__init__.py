"""Targets of the fuzzer: each takes any bytes, and raises Broken or anything else when a decoder breaks its promise."""
