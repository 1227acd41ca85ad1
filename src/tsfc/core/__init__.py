"""Pure decisions: Structs in, Structs out. No I/O, no clock, no environment."""
