"""How fast routing is, beside a bare forward of the encoder and beside other routers."""
