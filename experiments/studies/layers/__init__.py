"""The bottom-up pipeline: both papers' questions, layer by layer, in the simulator and on language models."""
