"""Luma over HTTP, without Airflow."""

from airflow_provider_luma.api.client import LumaClient
from airflow_provider_luma.api.errors import (
    LumaAmbiguousSubmission,
    LumaApiError,
    LumaAuthenticationError,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.generation import Generation, GenerationState

__all__ = [
    "Generation",
    "GenerationState",
    "LumaAmbiguousSubmission",
    "LumaApiError",
    "LumaAuthenticationError",
    "LumaClient",
    "LumaConnectionError",
    "LumaError",
    "LumaGenerationFailed",
    "LumaInvalidRequest",
    "LumaNotFound",
    "LumaQuotaError",
    "LumaRateLimited",
    "LumaServerError",
]
