"""A three-line LangChain app, before and after: only the model changes.

python examples/02_existing_app.py
"""

from __future__ import annotations

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_msat import ChatMSAT

QUESTIONS = ("How many primes are there below 100?", "Under which circumstances can a contract be rescinded?")


def stand_in(name: str) -> FakeListChatModel:
    """Where your app has ChatOpenAI(...), ChatAnthropic(...) and so on."""
    return FakeListChatModel(responses=[f"(an answer of {name})"])


def main() -> None:
    """The same chain over one model and over three."""
    prompt = ChatPromptTemplate.from_template("Answer in one sentence: {question}")
    before = prompt | stand_in("gpt-6.1-sol") | StrOutputParser()
    names = ("gpt-6.1-sol", "gemini-3.8-flash", "deepseek-v4-flash")
    router = ChatMSAT.from_pretrained({name: stand_in(name) for name in names})
    after = prompt | router  # and StrOutputParser() as before; here the message shows who answered, and why
    for question in QUESTIONS:
        print(question)
        print("  before:", before.invoke({"question": question}))
        answer = after.invoke({"question": question})
        print("  after: ", answer.content)
        print("  why:   ", answer.response_metadata["msat"]["reason"])


if __name__ == "__main__":
    main()
