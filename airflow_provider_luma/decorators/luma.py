"""`@task.luma_video`: a function's prompt becomes a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_luma.api import LumaInvalidRequest
from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_luma.api import Generation
    from airflow_provider_luma.hooks.luma import LumaHook
    from airflow_provider_luma.operators.submission import Submission


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
    late: ClassVar[tuple[str, ...]] = ("user_prompt",)
    same_at_each_try = False
    _context: Context | None = None
    _given_by_function: Mapping[str, Any] = MappingProxyType({})

    def execute(self, context: Context) -> str:
        """Call the function, unless an earlier try has, and submit what it returns."""
        self._context = context
        return LumaGenerateVideoOperator.execute(self, context)

    def _request(self) -> dict[str, Any]:
        self._call()
        return super()._request()

    def _submit(self, hook: LumaHook, witness: Submission) -> Generation:
        self._call()
        return super()._submit(hook, witness)

    def _call(self) -> None:
        """Call the function, once, and make what it returns the operator's arguments."""
        if self._context is None:
            return
        context, self._context = self._context, None
        context_merge(context, self.op_kwargs)
        returned = self.python_callable(*self.op_args, **determine_kwargs(self.python_callable, self.op_args, context))
        given = {"user_prompt": returned} if isinstance(returned, str) else returned
        known = (*self.arguments, "extra_body")
        if not isinstance(given, Mapping) or not set(given) <= set(known):
            raise LumaInvalidRequest(
                f"A @task.luma_video function returns a prompt, or a dict of some of {', '.join(known)}; "
                f"got {returned!r:.200}."
            )
        self._take(given)

    def _take(self, given: Mapping[str, Any]) -> None:
        self._given_by_function = given
        for name, value in given.items():
            setattr(self, name, value)
        # So that Airflow shows what was submitted.
        self.overwrite_rtif_after_execution = True

    def _kept(self) -> dict[str, Any]:
        # What Airflow shows of an image is enough here, too.
        return {"given": {name: getattr(self, name) for name in self._given_by_function}}

    def execute_complete(self, context: Context, event: dict[str, Any], given: Mapping[str, Any]) -> str:  # type: ignore[override]
        """Go on where the trigger left off, knowing again what the function had returned."""
        if given:
            self._take(given)
        return LumaGenerateVideoOperator.execute_complete(self, context, event)


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
