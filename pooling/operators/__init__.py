"""What users call: arguments are validated, a backend is chosen, arrays are allocated. One file per family of operators."""
