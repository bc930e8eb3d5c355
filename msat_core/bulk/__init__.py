"""Files of instructions of any size, routed part by part: by one process, or by Ray's workers."""
