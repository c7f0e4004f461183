"""What makes a run faster and changes no result: compiling ahead, decisions by measurement."""
