"""The decorator ``@task.luma_video``: a function returns a prompt, and the task submits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_luma.api.errors import LumaInvalidRequest
from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator


class _LumaVideoDecoratedOperator(DecoratedOperator, LumaGenerateVideoOperator):
    """
    Submit the prompt, or the dict of arguments, that a function returns.

    If an earlier try has submitted, the function is not called again: it might return another prompt, which would be
    paid, too. The returned text is not rendered as a template.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *LumaGenerateVideoOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **LumaGenerateVideoOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.luma_video"
    prompt_is_late = True

    def execute(self, context: Context) -> str:
        """Submit the result of the function, or resume the generation of an earlier try."""
        return LumaGenerateVideoOperator.execute(self, context)

    def _load_arguments(self, context: Context) -> None:
        """Call the function once in each try, and set the operator's arguments to its result."""
        if self._late is None:
            context_merge(context, self.op_kwargs)
            kwargs = determine_kwargs(self.python_callable, self.op_args, context)
            returned = self.python_callable(*self.op_args, **kwargs)
            given = {"user_prompt": returned} if isinstance(returned, str) else returned
            known = (*self.arguments, "extra_body")
            if not isinstance(given, Mapping) or not set(given) <= set(known):
                raise LumaInvalidRequest(
                    f"A @task.luma_video function returns a prompt, or a dict with some of {', '.join(known)}; "
                    f"got {returned!r:.200}."
                )
            self._late = dict(given)
        for name, value in self._late.items():
            setattr(self, name, value)
        # Airflow then shows the submitted arguments.
        self.overwrite_rtif_after_execution = True


def luma_video_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Turn a function that returns a prompt, or a dict of arguments, into a task that submits a generation.

    XComs, failures and arguments are those of
    :class:`~airflow_provider_luma.operators.luma.LumaGenerateVideoOperator`. An argument that the function returns
    overrides the decorator's.

    :param python_callable: the function.
    :param kwargs: the operator's arguments.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=_LumaVideoDecoratedOperator,
        **kwargs,
    )
