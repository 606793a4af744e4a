"""Luma over HTTP; this package imports no Airflow."""

from airflow_provider_luma.api.client import LumaClient as LumaClient
from airflow_provider_luma.api.errors import LumaAmbiguousSubmission as LumaAmbiguousSubmission
from airflow_provider_luma.api.errors import LumaApiError as LumaApiError
from airflow_provider_luma.api.errors import LumaAuthenticationError as LumaAuthenticationError
from airflow_provider_luma.api.errors import LumaConnectionError as LumaConnectionError
from airflow_provider_luma.api.errors import LumaError as LumaError
from airflow_provider_luma.api.errors import LumaGenerationFailed as LumaGenerationFailed
from airflow_provider_luma.api.errors import LumaInvalidRequest as LumaInvalidRequest
from airflow_provider_luma.api.errors import LumaNotFound as LumaNotFound
from airflow_provider_luma.api.errors import LumaQuotaError as LumaQuotaError
from airflow_provider_luma.api.errors import LumaRateLimited as LumaRateLimited
from airflow_provider_luma.api.errors import LumaServerError as LumaServerError
from airflow_provider_luma.api.generation import Generation as Generation
from airflow_provider_luma.api.generation import GenerationState as GenerationState
