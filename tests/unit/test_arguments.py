"""The arguments of a submission: each property of a row, and the values that are refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_luma.api import LumaClient, LumaInvalidRequest
from airflow_provider_luma.api.arguments import (
    ARGUMENTS,
    EXTEND_ARGUMENTS,
    IMAGES,
    boolean,
    check_generation_id,
    encode,
    merge,
    parse_bool,
    read_arguments,
    text,
)
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from tests.support.dialects import VALUES
from tests.support.samples import PROMPT

TEXTS = [name for name, argument in ARGUMENTS.items() if argument.read is text]
SWITCHES = [name for name, argument in ARGUMENTS.items() if argument.read is boolean]

each_argument = pytest.mark.parametrize("name", ARGUMENTS)


class TestRow:
    def test_table_has_the_users_names(self):
        """The table has the names that users type, in three kinds."""
        assert {*ARGUMENTS} == {*VALUES} == {*TEXTS, *SWITCHES, *IMAGES}
        assert (SWITCHES, IMAGES) == (["expand_prompt", "loop"], ("image_url", "image_end_url"))

    @each_argument
    def test_right_type_is_kept(self, name):
        """A value of the right type is kept unchanged."""
        assert read_arguments({name: VALUES[name]}) == {name: VALUES[name]}

    @each_argument
    @pytest.mark.parametrize("value", [None, "", "None"])
    def test_empty_value_is_left_out(self, name, value):
        """None, an empty text, and the text that a template renders for None are left out."""
        assert read_arguments({name: value}) == {}

    @each_argument
    @pytest.mark.parametrize("value", [5.5, ["a"], {"a": 1}, b"a", object()])
    def test_wrong_type_is_refused(self, name, value):
        """A value of another type is refused by the argument's name, with the type that was given."""
        kind = "True or False" if name in SWITCHES else "a string"
        with pytest.raises(LumaInvalidRequest, match=f"{name} must be {kind}, got {type(value).__name__} "):
            read_arguments({name: value})

    @pytest.mark.parametrize("name", TEXTS)
    def test_number_is_a_text(self, name):
        """A whole number is a text: native rendering makes a number of "2024"; a switch is not a text."""
        assert read_arguments({name: 2024}) == {name: "2024"}
        assert read_arguments({name: "True"}) == {name: "True"}
        with pytest.raises(LumaInvalidRequest, match=f"{name} must be a string, got bool True"):
            read_arguments({name: True})

    @pytest.mark.parametrize("name", SWITCHES)
    @pytest.mark.parametrize(("word", "flag"), [("True", True), ("true", True), (" False\n", False), (False, False)])
    def test_word_is_a_switch(self, name, word, flag):
        """The words that a template renders are switches; other words and numbers are refused."""
        assert read_arguments({name: word})[name] is flag
        for wrong in ("yes", 1, 0):
            with pytest.raises(LumaInvalidRequest, match=f"{name} must be True or False, got"):
                read_arguments({name: wrong})

    @pytest.mark.parametrize("name", IMAGES)
    def test_path_is_an_image(self, name):
        """An image may be a path object, or a text with spaces around it."""
        assert read_arguments({name: Path("/folder/boat.png")}) == {name: "/folder/boat.png"}
        assert read_arguments({name: " https://x/y.png\n"}) == {name: "https://x/y.png"}

    @each_argument
    def test_extension_accepts_or_refuses(self, name):
        """An extension accepts an argument exactly if its row says so; the operator has the same arguments."""
        extends = name in ("user_prompt", "expand_prompt", "image_url", "image_end_url", "notify_hook")
        assert ARGUMENTS[name].extends is (name in EXTEND_ARGUMENTS) is extends
        assert (name in LumaExtendVideoOperator.template_fields) is extends
        client = LumaClient("127.0.0.1:1", "token", retry_for=0)
        if not extends:
            with pytest.raises(LumaInvalidRequest, match=f"There is no argument {name} here: put it into extra_body"):
                client.extend("x", **{name: VALUES[name]})
        else:
            assert read_arguments({name: VALUES[name]}, EXTEND_ARGUMENTS)

    @each_argument
    def test_tab_shows_no_secrets(self, name):
        """The Luma tab shows the arguments that describe the video, and never a callback."""
        shown = [*TEXTS, *IMAGES]
        shown.remove("notify_hook")
        assert ARGUMENTS[name].shown is (name in shown)

    @each_argument
    def test_argument_is_templated(self, name):
        """The operator has each argument as a parameter and renders it."""
        assert name in LumaGenerateVideoOperator.template_fields
        operator = LumaGenerateVideoOperator(task_id="submit", **{name: VALUES[name]})
        assert getattr(operator, name) == VALUES[name]


class TestRefused:
    @pytest.mark.parametrize("call", ["submit", "extend"])
    def test_unknown_argument_is_refused(self, call):
        """An argument that does not exist is refused by name."""
        with pytest.raises(LumaInvalidRequest, match="There is no argument seed here: put it into extra_body"):
            getattr(LumaClient("127.0.0.1:1", "token", retry_for=0), call)(PROMPT, seed=1)

    @pytest.mark.parametrize("seed", [object(), float("nan"), float("inf")])
    def test_no_json_is_refused(self, seed):
        """A value that JSON cannot express is refused before anything is sent."""
        with pytest.raises(LumaInvalidRequest, match="cannot be written as JSON"):
            LumaClient("127.0.0.1:1", "token", retry_for=0).submit(PROMPT, extra_body={"seed": seed})

    def test_endless_json_is_refused(self):
        """A dict that contains itself is refused, too."""
        endless = {}
        endless["again"] = endless
        with pytest.raises(LumaInvalidRequest, match="cannot be written as JSON"):
            encode(endless)

    def test_long_value_is_cut(self):
        """A message repeats only the beginning of a value."""
        with pytest.raises(LumaInvalidRequest) as caught:
            read_arguments({"loop": "x" * 10_000})
        assert len(str(caught.value)) < 200

    def test_wrong_id_has_advice(self):
        """The message about a wrong generation id ends with the caller's advice."""
        with pytest.raises(LumaInvalidRequest, match=r"such as a UUID, got 7\.5\. Use XComs\.$"):
            check_generation_id(7.5, "Use XComs.")


def test_merge_names_the_place():
    """Fields that are given twice are refused with their names and the place; None is no field."""
    assert merge({"a": 1}, None) == {"a": 1}
    assert merge({"a": 1}, {"b": None}) == {"a": 1, "b": None}
    with pytest.raises(LumaInvalidRequest, match=r"Given twice, as an argument and in the video: a, b\.$"):
        merge({"a": 1, "b": 2, "c": 3}, {"b": 2, "a": 1}, "the video")


@pytest.mark.parametrize("value", ["yes", "", 1, None, ["true"]])
def test_other_values_are_not_booleans(value):
    """A value that is not a word for a boolean is returned unchanged."""
    assert parse_bool(value) is value
