"""Training of the compact scorer and, if asked, of its encoder."""
