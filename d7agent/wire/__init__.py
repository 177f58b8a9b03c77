"""The wire: Varlink framing (sans-IO), the message structs and the interface file."""
