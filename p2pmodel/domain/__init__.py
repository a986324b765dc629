"""Pure values and arithmetic: no I/O, no clock, only the standard library and the error tree."""
