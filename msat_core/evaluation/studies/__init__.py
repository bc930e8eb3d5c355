"""What a study of many candidates and zoos needs beyond `msat evaluate`; see `examples/reproduce`."""
