"""Process groups, the Lightning strategy, and how parameters are split over ranks. Imports torch and megatron-core."""

import warnings

with warnings.catch_warnings():
    # megatron-core warns a dozen times that Apex and Transformer Engine are not installed. They are not needed.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"megatron\.core\b")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    import megatron.core.parallel_state
    import megatron.core.tensor_parallel
    import megatron.core.transformer.transformer_layer  # noqa: F401
