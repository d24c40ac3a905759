"""One file per container: frames of a chunk in, bytes out, and a file that is whole after every chunk."""
