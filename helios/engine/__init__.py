"""Streams and sessions on top of the one rollout: devices, decoding, progress, saving and resuming."""
