"""`@task.luma_video`: a function's prompt becomes a video."""

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

    A retry does not call the function again where an earlier try has submitted what it returned then: it might return
    something else now, and that would be paid as well. What it returns is taken as it is, never as a template.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *LumaGenerateVideoOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **LumaGenerateVideoOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.luma_video"
    prompt_is_late = True
    _called = False

    def execute(self, context: Context) -> str:
        """Submit what the function returns, or resume what an earlier try submitted."""
        return LumaGenerateVideoOperator.execute(self, context)

    def _load_arguments(self, context: Context) -> None:
        """Call the function, once, and make what it returns the operator's arguments."""
        if self._called:
            return
        self._called = True
        context_merge(context, self.op_kwargs)
        returned = self.python_callable(*self.op_args, **determine_kwargs(self.python_callable, self.op_args, context))
        given = {"user_prompt": returned} if isinstance(returned, str) else returned
        known = (*self.arguments, "extra_body")
        if not isinstance(given, Mapping) or not set(given) <= set(known):
            raise LumaInvalidRequest(
                f"A @task.luma_video function returns a prompt, or a dict of some of {', '.join(known)}; "
                f"got {returned!r:.200}."
            )
        for name, value in given.items():
            setattr(self, name, value)
        # So that Airflow shows what was submitted.
        self.overwrite_rtif_after_execution = True


def luma_video_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Make a function that returns a prompt, or a dict of arguments, a task that submits a generation.

    What the task pushes and takes is what :class:`~airflow_provider_luma.operators.luma.LumaGenerateVideoOperator`
    does; an argument that the function returns counts for more than the same one of the decorator.

    :param python_callable: the function.
    :param kwargs: the operator's arguments.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=_LumaVideoDecoratedOperator,
        **kwargs,
    )
