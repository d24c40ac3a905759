"""One file per training method; each is told which network moves and calls backward itself."""
