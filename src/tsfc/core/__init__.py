"""What is decided, and nothing else: no I/O, no clock, no environment. Structs in, Structs out."""
