"""Search of the whole space: exact, by branch and bound, or by evolution."""
