"""Process groups, the Lightning strategy, and how parameters are split over ranks. Imports torch and megatron-core."""
