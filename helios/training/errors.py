"""What stops a training run that had started."""

from helios.errors import GenerationError


class TrainingError(GenerationError):
    """A run could not go on (loss not finite, disk full, a tensor that does not learn); its last checkpoint is good."""
