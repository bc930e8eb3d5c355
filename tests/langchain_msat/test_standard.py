"""langchain-tests' two standard suites, sockets blocked, over candidates that answer by rule."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from rule_chat import RuleChat
from support import table_router

from langchain_msat import ChatMSAT

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]


class OurChat(ChatMSAT):
    """The router as the suites build it: from keyword arguments that go to every candidate."""

    def __init__(self, **standard: Any) -> None:
        names = ("good", "fair", "poor")
        super().__init__(candidates={n: RuleChat(name=n, **standard) for n in names}, router=table_router())


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return OurChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return OurChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def has_tool_choice(self) -> bool:
        return True
