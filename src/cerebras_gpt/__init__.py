"""The whole Cerebras-GPT system as one small package: plan, train, predict, check, use, serve."""

__version__ = "0.1.0"
